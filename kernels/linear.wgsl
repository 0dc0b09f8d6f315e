// out = x * weight^T + bias for few rows: x (M, I), weight (O, I), bias (O) -> out (M, O), M <= ROWS per group.
//
// The weight is read once, which is all the time this takes. 16 outputs x 4 segments of I per workgroup: each
// invocation sums one segment of 256 in order from a staged tile, and segments are added in order, exactly the
// arithmetic of matmul.wgsl. Decoding one token and prefilling many thus give the same bits.

//#flags HAS_BIAS=true VECTOR=false
const ROWS: u32 = 4u; //#constant
const TOTALS: u32 = (ROWS + 3u) / 4u;
const X_TURNS: u32 = (ROWS * 16u + 63u) / 64u;
const PITCH: u32 = 5u; // 16 values of a lane and a pad of one vec4 against bank conflicts

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
var<workgroup> tile: array<vec4<f32>, 320>; // [64 lanes][PITCH]
var<workgroup> rows: array<vec4<f32>, ROWS * 20u>; // [ROWS][4 segments][PITCH]
var<workgroup> part: array<f32, 64u * ROWS>; // [ROWS][64 lanes]

//#if VECTOR
//| fn load4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(0.0); } //#load4 weight WEIGHT
//#else
fn load_weight(i: u32) -> f32 { return weight[i]; } //#load weight WEIGHT
//#endif
//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

fn weight_at(o: u32, k: u32) -> vec4<f32> {
  let base = p.weight_offset + o * p.weight_row + k * p.weight_col;
  if (o >= p.o || k >= p.i) { return vec4<f32>(0.0); }
  //#if VECTOR
  //| return load4(base, p.i - k);
  //#else
  let n = p.i - k;
  let s = p.weight_col;
  return vec4<f32>(
    load_weight(base),
    select(0.0, load_weight(base + s), n > 1u),
    select(0.0, load_weight(base + 2u * s), n > 2u),
    select(0.0, load_weight(base + 3u * s), n > 3u));
  //#endif
}

// n, but not to the compiler: software drivers unroll loops of constant length, and then compile for seconds.
fn rolled(n: u32) -> u32 { return min(n, n * p.m); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let lane_o = t / 4u;
  let lane_s = t % 4u;
  let o0 = wg.x * 16u;
  let row0 = wg.y * ROWS;
  var acc: array<f32, ROWS>; //#scalars
  var total: array<f32, TOTALS>; //#scalars
  for (var first = 0u; first < p.i; first += 1024u) {
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      acc[r] = 0.0;
    }
    let reach = min(256u, p.i - first); // of the first, longest segment
    for (var k = 0u; k < reach; k += 16u) {
      workgroupBarrier();
      //#unroll DEEP
      for (var s = 0u; s < rolled(4u); s++) {
        let i = t + s * 64u;
        let lane = i / 4u;
        tile[lane * PITCH + i % 4u] = weight_at(o0 + lane / 4u, first + lane % 4u * 256u + k + i % 4u * 4u);
      }
      //#unroll DEEP
      for (var s = 0u; s < rolled(X_TURNS); s++) {
        let i = t + s * 64u;
        let segment = i / 4u % 4u;
        if (i < ROWS * 16u) {
          rows[i / 4u * PITCH + i % 4u] = x_at(row0 + i / 16u, first + segment * 256u + k + i % 4u * 4u);
        }
      }
      workgroupBarrier();
      //#unroll DEEP
      for (var s = 0u; s < rolled(4u); s++) {
        let w = tile[t * PITCH + s];
        //#unroll
        for (var r = 0u; r < ROWS; r++) {
          let v = rows[(r * 4u + lane_s) * PITCH + s];
          acc[r] = fma(v.x, w.x, acc[r]);
          acc[r] = fma(v.y, w.y, acc[r]);
          acc[r] = fma(v.z, w.z, acc[r]);
          acc[r] = fma(v.w, w.w, acc[r]);
        }
      }
    }
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      part[r * 64u + t] = acc[r];
    }
    workgroupBarrier();
    // Each of the four invocations of an output joins every fourth row.
    //#unroll
    for (var i = 0u; i < TOTALS; i++) {
      let r = min(lane_s + i * 4u, ROWS - 1u);
      //#unroll
      for (var s = 0u; s < 4u; s++) {
        total[i] += part[r * 64u + lane_o * 4u + s];
      }
    }
  }
  let o = o0 + lane_o;
  //#unroll
  for (var i = 0u; i < TOTALS; i++) {
    let r = lane_s + i * 4u;
    if (r < ROWS && row0 + r < p.m && o < p.o) {
      //#if HAS_BIAS
      out[p.out_offset + (row0 + r) * p.out_row + o] = total[i] + load_bias(p.bias_offset + o * p.bias_stride);
      //#else
      //| out[p.out_offset + (row0 + r) * p.out_row + o] = total[i];
      //#endif
    }
  }
}

fn x_at(row: u32, k: u32) -> vec4<f32> {
  if (row >= p.m || k >= p.i) { return vec4<f32>(0.0); }
  let base = p.x_offset + row * p.x_row + k * p.x_col;
  let n = p.i - k;
  return vec4<f32>(
    x[base],
    select(0.0, x[base + p.x_col], n > 1u),
    select(0.0, x[base + 2u * p.x_col], n > 2u),
    select(0.0, x[base + 3u * p.x_col], n > 3u));
}
