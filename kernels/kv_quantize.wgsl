// Keys or values as int8: rows of x (B, H, N, D) -> out (B, H, N, D) and scales (B, H, N, 1), max|row| / 127. The same
// integers and scales as on the CPU, bit for bit; see kv_quantize.rs. One workgroup per row.

//#flags WORDS=true
alias Value = f32; //#alias IN

struct Params {
  rows: u32, // B * H * N
  pitch: u32, // workgroups per row of the grid
  h: u32,
  n: u32,
  d: u32,
  x_offset: u32,
  x_b: u32,
  x_h: u32,
  x_n: u32,
  x_d: u32,
  out_offset: u32,
  out_b: u32,
  out_h: u32,
  out_n: u32,
  scales_offset: u32,
  scales_b: u32,
  scales_h: u32,
  scales_n: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; //#storage IN
//#if WORDS
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
//#else
//| @group(0) @binding(2) var<storage, read_write> out: array<i32>; //#storage OUT
//#endif
@group(0) @binding(3) var<storage, read_write> scales: array<u32>; // bits of f32
var<workgroup> peak: array<u32, 64>;

fn load_x(i: u32) -> Value { return x[i]; } //#load x IN
//#if !WORDS
//| fn store_out(i: u32, v: i32) { out[i] = v; } //#store out OUT
//#endif

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

// The integer for an element.
fn rounded(v: f32, scale: f32) -> i32 {
  let magnitude = bitcast<u32>(v) & 0x7fffffffu;
  if (magnitude < 0x800000u || scale == 0.0) { return 0; }
  // A scale so small that it lost digits must not give more levels than there are.
  let q = i32(round(min(divided(bitcast<f32>(magnitude), scale), 127.0)));
  return select(q, -q, v < 0.0);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let n = row % p.n;
  let h = row / p.n % p.h;
  let b = row / p.n / p.h;
  let x0 = p.x_offset + b * p.x_b + h * p.x_h + n * p.x_n;
  let out0 = p.out_offset + b * p.out_b + h * p.out_h + n * p.out_n;
  var most = 0u;
  for (var i = t; i < p.d; i += 64u) { most = max(most, bitcast<u32>(load_x(x0 + i * p.x_d)) & 0x7fffffffu); }
  peak[t] = most;
  for (var width = 32u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) { peak[t] = max(peak[t], peak[t + width]); }
  }
  workgroupBarrier();
  most = peak[0];
  let finite = most < 0x7f800000u;
  let scale = select(0.0, divided(bitcast<f32>(most), 127.0), finite);
  if (t == 0u) { scales[p.scales_offset + b * p.scales_b + h * p.scales_h + n * p.scales_n] = select(0x7fc00000u, bitcast<u32>(scale), finite); }
  //#if WORDS
  for (var i = t * 4u; i < p.d; i += 256u) {
    var word = 0u;
    for (var k = 0u; k < 4u; k++) {
      word |= (bitcast<u32>(rounded(load_x(x0 + (i + k) * p.x_d), scale)) & 255u) << (k * 8u);
    }
    out[(out0 + i) / 4u] = word;
  }
  //#else
  //| for (var i = t; i < p.d; i += 64u) { store_out(out0 + i, rounded(load_x(x0 + i * p.x_d), scale)); }
  //#endif
}
