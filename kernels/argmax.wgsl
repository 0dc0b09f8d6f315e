// Index of the largest element of each row, the first on ties: x (M, N) -> out (M). One workgroup per row.
//
// Floats are compared as integers in the same order, since GPU arithmetic may take no notice of NaN: here a NaN is
// larger than everything, as on the CPU.

//#flags INTEGER=false
const THREADS: u32 = 64u;
alias Value = f32; //#alias IN

struct Params {
  rows: u32,
  pitch: u32, // workgroups per row of the grid
  n: u32,
  x_offset: u32,
  x_row: u32,
  x_col: u32,
  out_offset: u32,
  out_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; //#storage IN
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
var<workgroup> best: array<u32, 64>;
var<workgroup> place: array<u32, 64>;

fn load_x(i: u32) -> Value { return x[i]; } //#load x IN

// Grows with the value.
fn rank_of(v: Value) -> u32 {
  let bits = bitcast<u32>(v);
  //#if INTEGER
  //| return bits ^ 0x80000000u;
  //#else
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0xffffffffu; }
  if (magnitude == bits || magnitude == 0u) { return magnitude | 0x80000000u; }
  return ~bits;
  //#endif
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let xi = p.x_offset + row * p.x_row;
  // Invocations beyond the row repeat its first element, which can only tie with itself.
  var at = select(0u, t, t < p.n);
  var top = rank_of(load_x(xi + at * p.x_col));
  for (var j = t + THREADS; j < p.n; j += THREADS) {
    let v = rank_of(load_x(xi + j * p.x_col));
    if (v > top) {
      top = v;
      at = j;
    }
  }
  best[t] = top;
  place[t] = at;
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) {
      let other = best[t + width];
      if (other > best[t] || (other == best[t] && place[t + width] < place[t])) {
        best[t] = other;
        place[t] = place[t + width];
      }
    }
  }
  if (t == 0u) { out[p.out_offset + row * p.out_stride] = place[0]; }
}
