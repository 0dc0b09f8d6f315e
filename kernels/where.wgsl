// out = condition ? a : b, all broadcast by 0 strides. Values are moved as bits, so NaN and infinities pass.

const RANK: u32 = 1u; //#constant
alias Value = u32; //#alias OUT

struct Params {
  shape: array<vec4<u32>, 2>, // innermost dimension first
  c_strides: array<vec4<u32>, 2>,
  a_strides: array<vec4<u32>, 2>,
  b_strides: array<vec4<u32>, 2>,
  out_strides: array<vec4<u32>, 2>,
  count: u32,
  pitch: u32, // invocations per row of the grid
  c_offset: u32,
  a_offset: u32,
  b_offset: u32,
  out_offset: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> condition: array<u32>;
@group(0) @binding(2) var<storage, read> a: array<u32>; //#storage OUT
@group(0) @binding(3) var<storage, read> b: array<u32>; //#storage OUT
@group(0) @binding(4) var<storage, read_write> out: array<u32>; //#storage OUT

fn load_a(i: u32) -> Value { return a[i]; } //#load a OUT
fn load_b(i: u32) -> Value { return b[i]; } //#load b OUT
fn store_out(i: u32, v: Value) { out[i] = v; } //#store out OUT

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var rest = id.y * p.pitch + id.x;
  if (rest >= p.count) { return; }
  var ci = p.c_offset;
  var ai = p.a_offset;
  var bi = p.b_offset;
  var oi = p.out_offset;
  //#unroll
  for (var d = 0u; d < RANK; d++) {
    let at = rest % p.shape[d / 4u][d % 4u];
    rest /= p.shape[d / 4u][d % 4u];
    ci += at * p.c_strides[d / 4u][d % 4u];
    ai += at * p.a_strides[d / 4u][d % 4u];
    bi += at * p.b_strides[d / 4u][d % 4u];
    oi += at * p.out_strides[d / 4u][d % 4u];
  }
  if (condition[ci] != 0u) { store_out(oi, load_a(ai)); } else { store_out(oi, load_b(bi)); }
}
