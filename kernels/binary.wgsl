// out = op(a, b), both broadcast by 0 strides. One invocation per element; the host merges dimensions.

//#flags OP=add
const RANK: u32 = 1u; //#constant
alias Value = f32; //#alias OUT

struct Params {
  shape: array<vec4<u32>, 2>, // innermost dimension first
  a_strides: array<vec4<u32>, 2>,
  b_strides: array<vec4<u32>, 2>,
  out_strides: array<vec4<u32>, 2>,
  count: u32,
  pitch: u32, // invocations per row of the grid
  a_offset: u32,
  b_offset: u32,
  out_offset: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>; //#storage A
@group(0) @binding(2) var<storage, read> b: array<f32>; //#storage B
@group(0) @binding(3) var<storage, read_write> out: array<f32>; //#storage OUT

fn load_a(i: u32) -> Value { return a[i]; } //#load a A
fn load_b(i: u32) -> Value { return b[i]; } //#load b B

fn f(l: Value, r: Value) -> Value {
  //#if OP == add
  return l + r;
  //#elif OP == sub
  //| return l - r;
  //#elif OP == mul
  //| return l * r;
  //#elif OP == div
  //| return l / r;
  //#elif OP == maximum
  //| return max(l, r);
  //#elif OP == silu_mul
  //| return l / (1.0 + exp(-l)) * r;
  //#endif
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var rest = id.y * p.pitch + id.x;
  if (rest >= p.count) { return; }
  var ai = p.a_offset;
  var bi = p.b_offset;
  var oi = p.out_offset;
  //#unroll
  for (var d = 0u; d < RANK; d++) {
    let at = rest % p.shape[d / 4u][d % 4u];
    rest /= p.shape[d / 4u][d % 4u];
    ai += at * p.a_strides[d / 4u][d % 4u];
    bi += at * p.b_strides[d / 4u][d % 4u];
    oi += at * p.out_strides[d / 4u][d % 4u];
  }
  out[oi] = f(load_a(ai), load_b(bi));
}
