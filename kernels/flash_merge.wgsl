// Joins the parts of flash.wgsl's SPLIT: parts (B, H, Q, splits, 1 + DV4) -> out (B, Q, H, Dv), lse (B, H, Q).
//
// Parts hold unnormalised sums with their own maxima, so they are rescaled to the common one and added. One workgroup per
// row, eight groups of 32 invocations: a group adds every eighth part, in order of the keys, and groups are added in order.
// A long row has a hundred parts, and one chain over them would take longer than the attention.

//#flags SINKS=true LSE=true
const LANES: u32 = 32u;
const GROUPS: u32 = 8u;
const THREADS: u32 = 256u;
const MOST: u32 = 32u; // parts, in fours
const LOWEST: f32 = -3.4028234e38;

struct Params {
  rows: u32, // B * H * Q
  pitch: u32, // workgroups per row of the grid
  heads: u32,
  q: u32,
  dv: u32,
  splits: u32,
  out_offset: u32,
  lse_offset: u32,
  sinks_offset: u32,
  sinks_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
//#if LSE
@group(0) @binding(3) var<storage, read_write> lse: array<u32>; // bits of f32
//#endif
//#if SINKS
@group(0) @binding(4) var<storage, read> sinks: array<f32>; // (H)
//#endif

var<workgroup> tops: array<vec4<f32>, MOST>;
var<workgroup> sums: array<vec4<f32>, MOST>;
var<workgroup> joint: array<array<vec4<f32>, LANES>, GROUPS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let i = row % p.q;
  let h = row / p.q % p.heads;
  let b = row / p.q / p.heads;
  let size = 1u + (p.dv + 3u) / 4u;
  let first = row * p.splits * size;
  let fours = (p.splits + 3u) / 4u;
  // By one invocation each: components of a vector must not be written by several.
  if (t < fours) {
    var top = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0);
    for (var c = 0u; c < min(4u, p.splits - t * 4u); c++) {
      let part = parts[first + (t * 4u + c) * size];
      top[c] = part.x;
      total[c] = part.y;
    }
    tops[t] = top;
    sums[t] = total;
  }
  workgroupBarrier();
  var most = vec4<f32>(LOWEST);
  for (var s = 0u; s < fours; s++) { most = max(most, tops[s]); }
  var m = max(max(most.x, most.y), max(most.z, most.w));
  var sum = 0.0;
  //#if SINKS
  let sink = sinks[p.sinks_offset + h * p.sinks_stride];
  m = max(m, sink);
  sum = exp(sink - m);
  //#endif
  workgroupBarrier();
  if (t < fours) { tops[t] = exp(tops[t] - m); }
  workgroupBarrier();
  var four = vec4<f32>(0.0);
  for (var s = 0u; s < fours; s++) { four = fma(sums[s], tops[s], four); }
  sum += (four.x + four.y) + (four.z + four.w);
  let some = sum > 0.0;
  let scale = select(0.0, 1.0 / max(sum, 1.0e-30), some);
  let at = p.out_offset + ((b * p.q + i) * p.heads + h) * p.dv;
  for (var d0 = 0u; d0 < p.dv; d0 += LANES * 4u) {
    let d = d0 + t % LANES * 4u;
    var x = vec4<f32>(0.0);
    if (d < p.dv) {
      for (var s = t / LANES; s < p.splits; s += GROUPS) {
        x = fma(parts[first + s * size + 1u + d / 4u], vec4<f32>(tops[s / 4u][s % 4u]), x);
      }
    }
    joint[t / LANES][t % LANES] = x;
    workgroupBarrier();
    if (t < LANES && d < p.dv) {
      for (var g = 1u; g < GROUPS; g++) { x += joint[g][t]; }
      x *= scale;
      out[at + d] = x.x;
      if (d + 1u < p.dv) { out[at + d + 1u] = x.y; }
      if (d + 2u < p.dv) { out[at + d + 2u] = x.z; }
      if (d + 3u < p.dv) { out[at + d + 3u] = x.w; }
    }
    workgroupBarrier();
  }
  //#if LSE
  if (t == 0u) { lse[p.lse_offset + row] = select(0xff800000u, bitcast<u32>(m + log(max(sum, 1.0e-30))), some); }
  //#endif
}
