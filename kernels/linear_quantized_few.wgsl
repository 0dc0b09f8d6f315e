// out = x * weight^T + bias for few rows, weights in 8 or 4 bits: x (M, G, 12 words) of quantize_rows.wgsl, weight
// (ceil(O / 4), G) records as quantized_layout.rs draws them, bias (O) -> out (M, O), M <= ROWS.
//
// The weight is read once, which is all the time this takes. A workgroup has a block of 4 outputs, in 16 segments of 4
// groups of 32 columns: an invocation sums a segment of one output, and segments are added in order, exactly the
// arithmetic of linear_quantized.wgsl. Decoding one token and prefilling many thus give the same bits.

//#flags FORMAT=int8 HAS_BIAS=true PACKED_DOT=false
const ROWS: u32 = 4u; //#constant
const RECORD: u32 = 34u; //#constant
const VALUES: u32 = 2u; //#constant

struct Params {
  m: u32,
  groups: u32, // G
  o: u32,
  blocks: u32, // ceil(O / 4)
  pitch: u32, // blocks per row of the grid
  bias_offset: u32,
  bias_stride: u32,
  out_offset: u32,
  out_row: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<u32>;
//#if HAS_BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; //#storage BIAS
//#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, ROWS * 64u>; // [ROWS][16 segments][4 outputs]

//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

// Sum of four products of signed bytes.
fn dot4(a: u32, b: u32) -> i32 {
  //#if PACKED_DOT
  //| return dot4I8Packed(a, b);
  //#else
  let left = vec4<u32>(24u, 16u, 8u, 0u);
  let right = vec4<u32>(24u);
  return dot(bitcast<vec4<i32>>(vec4<u32>(a) << left) >> right, bitcast<vec4<i32>>(vec4<u32>(b) << left) >> right);
  //#endif
}

// n, but not to the compiler: software drivers unroll loops of constant length, and then compile for seconds.
fn rolled(n: u32) -> u32 { return min(n, n * p.m); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let c = t % 4u;
  let segment = t / 4u;
  let block = wg.y * p.pitch + wg.x;
  if (block >= p.blocks) { return; }
  var acc: array<f32, ROWS>; //#scalars
  var w: array<u32, 8>; //#scalars
  var total = 0.0;
  for (var first = 0u; first < p.groups; first += 64u) {
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      acc[r] = 0.0;
    }
    //#unroll DEEP
    for (var k = 0u; k < rolled(4u); k++) {
      let g = first + segment * 4u + k;
      if (g < p.groups) {
        let record = (block * p.groups + g) * RECORD;
        let values = record + VALUES + c;
        //#if FORMAT == int4
        //#unroll
        //| for (var s = 0u; s < 4u; s++) {
        //|   w[s * 2u] = weight[values + s * 4u];
        //|   w[s * 2u + 1u] = (w[s * 2u] >> 4u) & 0x0f0f0f0fu;
        //|   w[s * 2u] &= 0x0f0f0f0fu;
        //| }
        //#else
        //#unroll
        for (var s = 0u; s < 8u; s++) {
          w[s] = weight[values + s * 4u];
        }
        //#endif
        //#if FORMAT != int8
        //| let scale = unpack2x16float(weight[record + c / 2u] >> (c % 2u * 16u)).x;
        //#endif
        //#unroll
        for (var r = 0u; r < ROWS; r++) {
          let at = (min(r, p.m - 1u) * p.groups + g) * 3u;
          let a = x[at];
          let b = x[at + 1u];
          let rest = x[at + 2u];
          var sum = dot4(a.x, w[0]) + dot4(a.y, w[1]) + dot4(a.z, w[2]) + dot4(a.w, w[3]);
          sum += dot4(b.x, w[4]) + dot4(b.y, w[5]) + dot4(b.z, w[6]) + dot4(b.w, w[7]);
          //#if FORMAT == int4
          //| sum += bitcast<i32>(rest.y);
          //#endif
          //#if FORMAT == int8
          acc[r] = fma(f32(sum), bitcast<f32>(rest.x), acc[r]);
          //#else
          //| acc[r] = fma(f32(sum), bitcast<f32>(rest.x) * scale, acc[r]);
          //#endif
        }
      }
    }
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      part[r * 64u + t] = acc[r];
    }
    workgroupBarrier();
    // Invocation t joins row t / 4 of its output.
    let at = min(t / 4u, ROWS - 1u) * 64u + c;
    //#unroll DEEP
    for (var s = 0u; s < rolled(16u); s++) {
      total += part[at + s * 4u];
    }
    workgroupBarrier();
  }
  let row = t / 4u;
  let o = block * 4u + c;
  if (row >= p.m || o >= p.o) { return; }
  //#if HAS_BIAS
  let shift = load_bias(p.bias_offset + o * p.bias_stride);
  //#else
  //| let shift = 0.0;
  //#endif
  //#if FORMAT == int8
  out[p.out_offset + row * p.out_row + o] = fma(total, bitcast<f32>(weight[p.blocks * p.groups * RECORD + o]), shift);
  //#else
  //| out[p.out_offset + row * p.out_row + o] = total + shift;
  //#endif
}
