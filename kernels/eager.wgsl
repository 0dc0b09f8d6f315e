// Attention weights from raw scores, in place: scores (B, H, Q, K) -> softmax(mask(softcap(score * scaling))).
//
// The middle of eager attention; matmul.wgsl makes the scores before and weighs the values after. One
// workgroup per row, every mask form, attention sinks and the log-sum-exp. Hidden keys are marked by LOWEST,
// never by -inf: GPU arithmetic does not promise infinities.

//#flags BLOCKS=true SOFTCAP=true CAUSAL=true LEFT=true RIGHT=true PADDING=true ZERO_QUERIES=true MASK=additive SINKS=true LSE=true
const THREADS: u32 = 64u;
const LOWEST: f32 = -3.4028234e38;

struct Params {
  rows: u32, // B * H * Q
  pitch: u32, // workgroups per row of the grid
  heads: u32,
  q: u32,
  k: u32,
  weights_offset: u32,
  lse_offset: u32,
  padding_offset: u32,
  padding_b: u32,
  padding_k: u32,
  mask_offset: u32,
  mask_b: u32,
  mask_h: u32,
  mask_q: u32,
  mask_k: u32,
  sinks_offset: u32,
  sinks_stride: u32,
  query_offset: i32,
  window_left: i32,
  window_right: i32,
  scaling: f32,
  softcap: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> weights: array<f32>; // (B, H, Q, K)
//#if LSE
@group(0) @binding(2) var<storage, read_write> lse: array<u32>; // (B, H, Q), bits of f32
//#endif
//#if PADDING
@group(0) @binding(3) var<storage, read> padding: array<u32>; // (B, K), 1 = real key
//#endif
//#if MASK != none
@group(0) @binding(4) var<storage, read> mask: array<u32>; // (B, H, Q, K) by strides: 1 = visible, or bits of an f32 bias
//#endif
//#if SINKS
@group(0) @binding(5) var<storage, read> sinks: array<f32>; // (H)
//#endif
var<workgroup> part: array<f32, 64>;

//#if SOFTCAP
// The built-in tanh is allowed a large error and has one; exp is accurate, and the series covers what cancels.
fn tanh_of(v: f32) -> f32 {
  let a = min(abs(v), 15.0);
  let s = v * v;
  let e = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
  let series = v + v * s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869489)));
  return select(select(-e, e, v >= 0.0), series, a < 0.25);
}
//#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let i = row % p.q;
  let h = row / p.q % p.heads;
  let b = row / p.q / p.heads;
  let at = p.weights_offset + row * p.k;
  let position = i32(i) + p.query_offset;
  var alive = true;
  //#if ZERO_QUERIES
  if (position >= 0 && position < i32(p.k)) {
    alive = padding[p.padding_offset + b * p.padding_b + u32(position) * p.padding_k] != 0u;
  }
  //#endif

  var m = LOWEST;
  for (var j = t; j < p.k; j += THREADS) {
    var s = weights[at + j] * p.scaling;
    var seen = alive;
    //#if BLOCKS
    seen = seen && weights[at + j] > LOWEST; // else blocks.wgsl has hidden it
    //#endif
    //#if SOFTCAP
    s = p.softcap * tanh_of(s / p.softcap);
    //#endif
    //#if CAUSAL
    seen = seen && i32(j) <= position;
    //#endif
    //#if LEFT
    seen = seen && i32(j) >= position - p.window_left;
    //#endif
    //#if RIGHT
    seen = seen && i32(j) <= position + p.window_right;
    //#endif
    //#if PADDING
    seen = seen && padding[p.padding_offset + b * p.padding_b + j * p.padding_k] != 0u;
    //#endif
    //#if MASK == bool
    //| seen = seen && mask[p.mask_offset + b * p.mask_b + h * p.mask_h + i * p.mask_q + j * p.mask_k] != 0u;
    //#elif MASK == additive
    // As integers, negative floats grow downwards: everything from -1.7014117e38 (min / 2) to -inf is hidden.
    let bias = mask[p.mask_offset + b * p.mask_b + h * p.mask_h + i * p.mask_q + j * p.mask_k];
    seen = seen && bias < 0xfeffffffu;
    s += bitcast<f32>(select(0u, bias, seen));
    //#endif
    s = select(LOWEST, s, seen);
    weights[at + j] = s;
    m = max(m, s);
  }
  part[t] = m;
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) { part[t] = max(part[t], part[t + width]); }
  }
  workgroupBarrier();
  m = part[0];
  //#if SINKS
  let sink = sinks[p.sinks_offset + h * p.sinks_stride];
  m = max(m, sink);
  //#endif
  workgroupBarrier();

  var sum = 0.0;
  for (var j = t; j < p.k; j += THREADS) {
    let s = weights[at + j];
    let w = select(exp(s - m), 0.0, s <= LOWEST);
    weights[at + j] = w;
    sum += w;
  }
  part[t] = sum;
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) { part[t] += part[t + width]; }
  }
  workgroupBarrier();
  sum = part[0];
  //#if SINKS
  sum += exp(sink - m);
  //#endif
  let some = sum > 0.0;
  let scale = select(0.0, 1.0 / max(sum, 1.0e-30), some);
  for (var j = t; j < p.k; j += THREADS) { weights[at + j] *= scale; }
  //#if LSE
  if (t == 0u) { lse[p.lse_offset + row] = select(0xff800000u, bitcast<u32>(m + log(max(sum, 1.0e-30))), some); }
  //#endif
}
