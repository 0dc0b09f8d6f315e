// out = x * weight^T + bias on matrix units: x (M, I) f32, weight (O, I) f16, bias (O) -> out (M, O) f32.
//
// Factors are rounded to f16, products are summed in f32 by subgroup matrices of 16 x 16 x 16. A workgroup of four
// subgroups makes BM x BN results, each subgroup RM x RN matrices of them. Every result adds its products in steps
// of 16 along I, whatever the tile: it does not depend on how many rows there are. Never run on hardware yet.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;

//#flags HAS_BIAS=true
const RM: u32 = 2u; //#constant
const RN: u32 = 2u; //#constant
const ACROSS: u32 = 2u; //#constant
const DOWN: u32 = 4u / ACROSS;
const BM: u32 = 16u * RM * DOWN;
const BN: u32 = 16u * RN * ACROSS;
const MATRICES: u32 = RM * RN;
const PITCH: u32 = 40u; // 32 values and a pad against bank conflicts

struct Params {
  m: u32,
  i: u32,
  o: u32,
  x_offset: u32,
  x_row: u32,
  x_col: u32,
  weight_offset: u32,
  weight_row: u32,
  weight_col: u32,
  bias_offset: u32,
  bias_stride: u32,
  out_offset: u32,
  out_row: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>; //#storage WEIGHT
//#if HAS_BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; //#storage BIAS
//#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
var<workgroup> left: array<f16, BM * PITCH>; // [BM][PITCH]
var<workgroup> right: array<f16, BN * PITCH>; // [BN][PITCH]
var<workgroup> result: array<f32, 1024>; // [4 subgroups][16][16]

fn load_weight(i: u32) -> f32 { return weight[i]; } //#load weight WEIGHT
//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) wg: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let row0 = wg.y * BM;
  let o0 = wg.x * BN;
  // Adapters with smaller subgroups than 32 have more than four of them here: those only load and store.
  let works = subgroup < 4u;
  let sub_row = subgroup / ACROSS * RM * 16u;
  let sub_col = subgroup % ACROSS * RN * 16u;
  var acc: array<subgroup_matrix_result<f32, 16, 16>, MATRICES>; //#scalars
  for (var k = 0u; k < p.i; k += 32u) {
    workgroupBarrier();
    for (var s = t; s < BM * 32u; s += 128u) {
      let row = row0 + s / 32u;
      let col = k + s % 32u;
      var v = 0.0;
      if (row < p.m && col < p.i) { v = x[p.x_offset + row * p.x_row + col * p.x_col]; }
      left[s / 32u * PITCH + s % 32u] = f16(v);
    }
    for (var s = t; s < BN * 32u; s += 128u) {
      let row = o0 + s / 32u;
      let col = k + s % 32u;
      var v = 0.0;
      if (row < p.o && col < p.i) { v = load_weight(p.weight_offset + row * p.weight_row + col * p.weight_col); }
      right[s / 32u * PITCH + s % 32u] = f16(v);
    }
    workgroupBarrier();
    if (works) {
      for (var step = 0u; step < 32u; step += 16u) {
        //#unroll
        for (var r = 0u; r < RM; r++) {
          let a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(
            &left, (sub_row + r * 16u) * PITCH + step, false, PITCH);
          //#unroll
          for (var c = 0u; c < RN; c++) {
            let b = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(
              &right, (sub_col + c * 16u) * PITCH + step, true, PITCH);
            acc[r * RN + c] = subgroupMatrixMultiplyAccumulate(a, b, acc[r * RN + c]);
          }
        }
      }
    }
  }
  //#unroll
  for (var r = 0u; r < RM; r++) {
    //#unroll
    for (var c = 0u; c < RN; c++) {
      workgroupBarrier();
      if (works) {
        subgroupMatrixStore(&result, subgroup * 256u, acc[r * RN + c], false, 16u);
      }
      workgroupBarrier();
      for (var s = t; s < 1024u; s += 128u) {
        let who = s / 256u;
        let row = row0 + (who / ACROSS * RM + r) * 16u + s % 256u / 16u;
        let o = o0 + (who % ACROSS * RN + c) * 16u + s % 16u;
        if (row < p.m && o < p.o) {
          //#if HAS_BIAS
          out[p.out_offset + row * p.out_row + o] = result[s] + load_bias(p.bias_offset + o * p.bias_stride);
          //#else
          //| out[p.out_offset + row * p.out_row + o] = result[s];
          //#endif
        }
      }
    }
  }
}
