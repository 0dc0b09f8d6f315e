// (x - mean) / sqrt(variance + eps) * weight + bias over rows: x (M, N), weight (N), bias (N) -> out (M, N).
//
// Two passes: the variance is of differences from the mean, because mean(x^2) - mean(x)^2 cancels.

//#flags HAS_BIAS=true SUBGROUPS=false
const THREADS: u32 = 64u;

struct Params {
  rows: u32,
  pitch: u32, // workgroups per row of the grid
  n: u32,
  x_offset: u32,
  x_row: u32,
  x_col: u32,
  weight_offset: u32,
  weight_stride: u32,
  bias_offset: u32,
  bias_stride: u32,
  out_offset: u32,
  out_row: u32,
  out_col: u32,
  eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; //#storage IN
@group(0) @binding(2) var<storage, read> weight: array<f32>; //#storage WEIGHT
//#if HAS_BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; //#storage BIAS
//#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, 64>;

fn load_x(i: u32) -> f32 { return x[i]; } //#load x IN
fn load_weight(i: u32) -> f32 { return weight[i]; } //#load weight WEIGHT
//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

@compute @workgroup_size(64)
fn main(
  //#if SUBGROUPS
  //| @builtin(subgroup_size) size: u32,
  //| @builtin(subgroup_invocation_id) lane: u32,
  //#endif
  @builtin(workgroup_id) wg: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let xi = p.x_offset + row * p.x_row;
  let oi = p.out_offset + row * p.out_row;
  var sum = 0.0;
  for (var j = t; j < p.n; j += THREADS) { sum += load_x(xi + j * p.x_col); }
  //#if SUBGROUPS
  //| sum = subgroupAdd(sum);
  //| if (lane == 0u) { part[t / size] = sum; }
  //| workgroupBarrier();
  //| sum = part[0];
  //| for (var i = 1u; i < THREADS / size; i++) { sum += part[i]; }
  //#else
  part[t] = sum;
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) { part[t] += part[t + width]; }
  }
  workgroupBarrier();
  sum = part[0];
  //#endif
  let mean = sum / f32(p.n);
  workgroupBarrier();
  sum = 0.0;
  for (var j = t; j < p.n; j += THREADS) {
    let v = load_x(xi + j * p.x_col) - mean;
    sum = fma(v, v, sum);
  }
  //#if SUBGROUPS
  //| sum = subgroupAdd(sum);
  //| if (lane == 0u) { part[t / size] = sum; }
  //| workgroupBarrier();
  //| sum = part[0];
  //| for (var i = 1u; i < THREADS / size; i++) { sum += part[i]; }
  //#else
  part[t] = sum;
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) { part[t] += part[t + width]; }
  }
  workgroupBarrier();
  sum = part[0];
  //#endif
  let scale = 1.0 / sqrt(sum / f32(p.n) + p.eps);
  for (var j = t; j < p.n; j += THREADS) {
    let v = (load_x(xi + j * p.x_col) - mean) * scale * load_weight(p.weight_offset + j * p.weight_stride);
    //#if HAS_BIAS
    out[oi + j * p.out_col] = v + load_bias(p.bias_offset + j * p.bias_stride);
    //#else
    //| out[oi + j * p.out_col] = v;
    //#endif
  }
}
