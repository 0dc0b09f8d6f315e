// Rows of x (M, I) as integers with a scale for 32 columns -> out (M, G, 12 words), G = ceil(I / 32): 8 words of four
// integers, the scale, -8 times the sum of the integers, two words that nothing reads. 8 invocations a group.
//
// The same integers and scales as on the CPU, bit for bit: rounding is to even, quotients are corrected below, and the
// largest magnitude is compared as bits, which keeps NaN and infinity.

const THREADS: u32 = 64u;

struct Params {
  items: u32, // M * G
  pitch: u32, // groups per row of the grid
  groups: u32, // G
  i: u32,
  x_offset: u32,
  x_row: u32,
  x_col: u32,
  limit: f32, // the largest integer
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
var<workgroup> peak: array<u32, 64>;
var<workgroup> sums: array<i32, 64>;

// a / b for positive numbers, to the nearest: a built-in division may be off by some units in the last place. What an
// estimate of the quotient leaves over is small, so it is known although its terms wrap around.
fn divided(a: f32, b: f32) -> f32 {
  let x = bitcast<u32>(a);
  let y = bitcast<u32>(b);
  let m = (x & 0x7fffffu) | 0x800000u;
  let n = (y & 0x7fffffu) | 0x800000u;
  let shift = select(23u, 24u, m < n);
  var q = u32(f32(m) / f32(n) * f32(1u << shift));
  var rest = bitcast<i32>((m << shift) - q * n);
  let step = i32(n);
  for (var i = 0u; i < 4u; i++) {
    let by = select(select(0, 1, rest >= step), -1, rest < 0);
    q += bitcast<u32>(by);
    rest -= by * step;
  }
  q += select(0u, 1u, 2 * rest > step || (2 * rest == step && (q & 1u) == 1u));
  let exponent = i32(x >> 23u) - i32(y >> 23u) + 150 - i32(shift);
  if (exponent <= 0) { return 0.0; }
  return bitcast<f32>((u32(exponent) << 23u) + (q - 0x800000u));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let lane = t % 8u;
  let item = wg.y * p.pitch + wg.x * 8u + t / 8u;
  let row = item / p.groups;
  let col = item % p.groups * 32u + lane * 4u;
  let base = p.x_offset + row * p.x_row + col * p.x_col;
  var v = vec4<f32>(0.0);
  if (item < p.items && col < p.i) {
    let n = p.i - col;
    v = vec4<f32>(
      x[base],
      select(0.0, x[base + p.x_col], n > 1u),
      select(0.0, x[base + 2u * p.x_col], n > 2u),
      select(0.0, x[base + 3u * p.x_col], n > 3u));
  }
  let magnitude = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
  peak[t] = max(max(magnitude.x, magnitude.y), max(magnitude.z, magnitude.w));
  workgroupBarrier();
  var most = 0u;
  //#unroll
  for (var s = 0u; s < 8u; s++) {
    most = max(most, peak[t - lane + s]);
  }
  let finite = most < 0x7f800000u;
  // A quotient beyond float32 is one of numbers that add nothing.
  let some = finite && bitcast<f32>(most) > 1e-36;
  var q = vec4<i32>(0);
  if (some) { q = vec4<i32>(round(v * divided(p.limit, bitcast<f32>(most)))); }
  sums[t] = q.x + q.y + q.z + q.w;
  workgroupBarrier();
  if (item >= p.items) { return; }
  let bytes = bitcast<vec4<u32>>(q) & vec4<u32>(255u);
  out[item * 12u + lane] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
  if (lane == 0u) {
    var scale = select(most, 0u, finite);
    if (some) { scale = bitcast<u32>(divided(bitcast<f32>(most), p.limit)); }
    out[item * 12u + 8u] = scale;
    var sum = 0;
    //#unroll
    for (var s = 0u; s < 8u; s++) {
      sum += sums[t + s];
    }
    out[item * 12u + 9u] = bitcast<u32>(-8 * sum);
  }
}
