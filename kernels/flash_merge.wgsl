// Joins the parts of flash.wgsl's SPLIT: parts (B, H, Q, splits, 1 + DV4) -> out (B, Q, H, Dv), lse (B, H, Q).
//
// Parts hold unnormalised sums with their own maxima, so they are rescaled to the common one and added, in order
// of the keys. One workgroup per row; every invocation reads the few maxima itself.

//#flags SINKS=true LSE=true
const THREADS: u32 = 64u;
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

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let i = row % p.q;
  let h = row / p.q % p.heads;
  let b = row / p.q / p.heads;
  let size = 1u + (p.dv + 3u) / 4u;
  let first = row * p.splits * size;
  var m = LOWEST;
  for (var s = 0u; s < p.splits; s++) { m = max(m, parts[first + s * size].x); }
  var sum = 0.0;
  //#if SINKS
  let sink = sinks[p.sinks_offset + h * p.sinks_stride];
  m = max(m, sink);
  sum = exp(sink - m);
  //#endif
  for (var s = 0u; s < p.splits; s++) {
    let part = parts[first + s * size];
    sum = fma(part.y, exp(part.x - m), sum);
  }
  let some = sum > 0.0;
  let scale = select(0.0, 1.0 / max(sum, 1.0e-30), some);
  let at = p.out_offset + ((b * p.q + i) * p.heads + h) * p.dv;
  for (var d = t * 4u; d < p.dv; d += THREADS * 4u) {
    var x = vec4<f32>(0.0);
    for (var s = 0u; s < p.splits; s++) {
      let part = first + s * size;
      x = fma(parts[part + 1u + d / 4u], vec4<f32>(exp(parts[part].x - m)), x);
    }
    x *= scale;
    out[at + d] = x.x;
    if (d + 1u < p.dv) { out[at + d + 1u] = x.y; }
    if (d + 2u < p.dv) { out[at + d + 2u] = x.z; }
    if (d + 3u < p.dv) { out[at + d + 3u] = x.w; }
  }
  //#if LSE
  if (t == 0u) { lse[p.lse_offset + row] = select(0xff800000u, bitcast<u32>(m + log(max(sum, 1.0e-30))), some); }
  //#endif
}
