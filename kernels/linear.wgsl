// out = x * weight^T + bias for few rows: x (M, I), weight (O, I), bias (O) -> out (M, O), M <= ROWS per group.
//
// The weight is read once, which is all the time this takes: what counts is how many bytes are on their way. 64
// invocations have 64 / SEGMENTS outputs by SEGMENTS segments of I, so that long rows give more workgroups; each sums one
// segment of 256 in order from a staged tile, with DEEP while its part of the next tile is being loaded into registers.
// Segments are added in order, exactly the arithmetic of matmul.wgsl: one token and many give the same bits.

//#flags HAS_BIAS=true VECTOR=false DEEP=false
const ROWS: u32 = 4u; //#constant
const SEGMENTS: u32 = 4u; //#constant
const OUTPUTS: u32 = 64u / SEGMENTS;
const TOTALS: u32 = (ROWS + SEGMENTS - 1u) / SEGMENTS;
const VECTORS: u32 = 8u; // of a lane in a tile
const STEP: u32 = VECTORS * 4u;
const X_VECTORS: u32 = ROWS * SEGMENTS * VECTORS;
const X_TURNS: u32 = (X_VECTORS + 63u) / 64u;
const PITCH: u32 = VECTORS + 1u; // padded against bank conflicts

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
var<workgroup> tile: array<array<vec4<f32>, PITCH>, 64>;
var<workgroup> rows: array<array<vec4<f32>, PITCH>, ROWS * SEGMENTS>; // [ROWS][SEGMENTS]
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
  let lane_o = t / SEGMENTS;
  let lane_s = t % SEGMENTS;
  let o0 = wg.x * OUTPUTS;
  let row0 = wg.y * ROWS;
  var acc: array<f32, ROWS>; //#scalars
  var total: array<f32, TOTALS>; //#scalars
  //#if DEEP
  //| var next: array<vec4<f32>, VECTORS>; //#scalars
  //| var next_x: array<vec4<f32>, X_TURNS>; //#scalars
  //#endif
  for (var first = 0u; first < p.i; first += SEGMENTS * 256u) {
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      acc[r] = 0.0;
    }
    //#if DEEP
    //#unroll
    //| for (var s = 0u; s < VECTORS; s++) {
      //| next[s] = weight_vector(o0, first, t + s * 64u);
    //| }
    //#unroll
    //| for (var s = 0u; s < X_TURNS; s++) {
      //| next_x[s] = x_vector(row0, first, t + s * 64u);
    //| }
    //#endif
    let reach = min(256u, p.i - first); // of the first, longest segment
    for (var k = 0u; k < reach; k += STEP) {
      workgroupBarrier();
      //#if DEEP
      //#unroll
      //| for (var s = 0u; s < VECTORS; s++) {
        //| tile[(t + s * 64u) / VECTORS][t % VECTORS] = next[s];
      //| }
      //#unroll
      //| for (var s = 0u; s < X_TURNS; s++) {
        //| if (t + s * 64u < X_VECTORS) { rows[(t + s * 64u) / VECTORS][t % VECTORS] = next_x[s]; }
      //| }
      //#else
      for (var i = t; i < 64u * VECTORS; i += 64u) {
        tile[i / VECTORS][i % VECTORS] = weight_vector(o0, first + k, i);
      }
      for (var i = t; i < X_VECTORS; i += 64u) {
        rows[i / VECTORS][i % VECTORS] = x_vector(row0, first + k, i);
      }
      //#endif
      workgroupBarrier();
      //#if DEEP
      //| if (k + STEP < reach) {
        //#unroll
        //| for (var s = 0u; s < VECTORS; s++) {
          //| next[s] = weight_vector(o0, first + k + STEP, t + s * 64u);
        //| }
        //#unroll
        //| for (var s = 0u; s < X_TURNS; s++) {
          //| next_x[s] = x_vector(row0, first + k + STEP, t + s * 64u);
        //| }
      //| }
      //#endif
      //#unroll DEEP
      for (var s = 0u; s < rolled(VECTORS); s++) {
        let w = tile[t][s];
        //#unroll
        for (var r = 0u; r < ROWS; r++) {
          let v = rows[r * SEGMENTS + lane_s][s];
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
    // Each of the invocations of an output joins its share of the rows.
    //#unroll
    for (var i = 0u; i < TOTALS; i++) {
      let r = min(lane_s + i * SEGMENTS, ROWS - 1u);
      //#unroll
      for (var s = 0u; s < SEGMENTS; s++) {
        total[i] += part[r * 64u + lane_o * SEGMENTS + s];
      }
    }
  }
  let o = o0 + lane_o;
  //#unroll
  for (var i = 0u; i < TOTALS; i++) {
    let r = lane_s + i * SEGMENTS;
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

// The i-th vectors of tiles that begin at column k of the first segment.
fn weight_vector(o0: u32, k: u32, i: u32) -> vec4<f32> {
  let lane = i / VECTORS;
  return weight_at(o0 + lane / SEGMENTS, k + lane % SEGMENTS * 256u + i % VECTORS * 4u);
}
fn x_vector(row0: u32, k: u32, i: u32) -> vec4<f32> {
  let lane = i / VECTORS;
  if (i >= X_VECTORS) { return vec4<f32>(0.0); }
  return x_at(row0 + lane / SEGMENTS, k + lane % SEGMENTS * 256u + i % VECTORS * 4u);
}
