// Softmax over the last dimension, and optionally its log-sum-exp: x (…, N) -> out (…, N), lse (…).
//
// One workgroup per row, three passes over it; the order of additions depends on N alone. GPU arithmetic does
// not promise infinities, so a -inf element is recognised by its bits and never enters the arithmetic.

//#flags LSE=true SUBGROUPS=false
const RANK: u32 = 1u; //#constant
const THREADS: u32 = 64u;
const LOWEST: f32 = -3.4028234e38;

struct Params {
  shape: array<vec4<u32>, 2>, // outer dimensions, innermost first
  x_strides: array<vec4<u32>, 2>,
  rows: u32,
  pitch: u32, // workgroups per row of the grid
  x_offset: u32,
  out_offset: u32,
  lse_offset: u32,
  n: u32,
  n_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>; // bits of f32
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
//#if LSE
@group(0) @binding(3) var<storage, read_write> lse: array<u32>; // bits of f32
//#endif
var<workgroup> part: array<f32, 64>;

// exp(v - m) for m >= v, where the difference itself may overflow.
fn weight(v: f32, m: f32) -> f32 { return exp(2.0 * max(0.5 * v - 0.5 * m, -1000.0)); }

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
  var rest = row;
  var xi = p.x_offset;
  //#unroll
  for (var d = 0u; d < RANK; d++) {
    xi += rest % p.shape[d / 4u][d % 4u] * p.x_strides[d / 4u][d % 4u];
    rest /= p.shape[d / 4u][d % 4u];
  }
  let oi = p.out_offset + row * p.n;

  var m = LOWEST;
  for (var j = t; j < p.n; j += THREADS) {
    let bits = x[xi + j * p.n_stride];
    m = max(m, select(bitcast<f32>(bits), LOWEST, bits == 0xff800000u));
  }
  //#if SUBGROUPS
  //| m = subgroupMax(m);
  //| if (lane == 0u) { part[t / size] = m; }
  //| workgroupBarrier();
  //| m = part[0];
  //| for (var i = 1u; i < THREADS / size; i++) { m = max(m, part[i]); }
  //#else
  part[t] = m;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (t < half) { part[t] = max(part[t], part[t + half]); }
  }
  workgroupBarrier();
  m = part[0];
  //#endif
  workgroupBarrier();

  var sum = 0.0;
  for (var j = t; j < p.n; j += THREADS) {
    let bits = x[xi + j * p.n_stride];
    let hidden = bits == 0xff800000u;
    let w = select(weight(bitcast<f32>(select(bits, 0xff7fffffu, hidden)), m), 0.0, hidden);
    out[oi + j] = w;
    sum += w;
  }
  //#if SUBGROUPS
  //| sum = subgroupAdd(sum);
  //| if (lane == 0u) { part[t / size] = sum; }
  //| workgroupBarrier();
  //| sum = part[0];
  //| for (var i = 1u; i < THREADS / size; i++) { sum += part[i]; }
  //#else
  part[t] = sum;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (t < half) { part[t] += part[t + half]; }
  }
  workgroupBarrier();
  sum = part[0];
  //#endif
  let scale = select(0.0, 1.0 / max(sum, 1.0e-30), sum > 0.0);
  for (var j = t; j < p.n; j += THREADS) { out[oi + j] *= scale; }
  //#if LSE
  if (t == 0u) { lse[p.lse_offset + row] = select(0xff800000u, bitcast<u32>(m + log(max(sum, 1.0e-30))), sum > 0.0); }
  //#endif
}
