// out = op(x) for any strides, and every conversion between element types.
//
// Over one invocation per element of a row-major copy: the host merges dimensions that lie together, so a
// contiguous operand has RANK 1 and no divisions; two half results that share a word are stored as one word.

//#flags OP=copy PAIR=false TO=float
const RANK: u32 = 1u; //#constant
alias In = f32; //#alias IN
alias Out = f32; //#alias OUT

struct Params {
  shape: array<vec4<u32>, 2>, // innermost dimension first
  x_strides: array<vec4<u32>, 2>,
  out_strides: array<vec4<u32>, 2>,
  count: u32, // invocations
  pitch: u32, // invocations per row of the grid
  x_offset: u32,
  out_offset: u32,
  x_step: u32, // PAIR: from the first to the second element of a word
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; //#storage IN
//#if PAIR
//| @group(0) @binding(2) var<storage, read_write> out: array<u32>;
//#else
@group(0) @binding(2) var<storage, read_write> out: array<f32>; //#storage OUT
//#endif

fn load_x(i: u32) -> In { return x[i]; } //#load x IN
//#if PAIR
//| fn bits(v: Out) -> u32 { return 0u; } //#bits OUT
//#else
fn store_out(i: u32, v: Out) { out[i] = v; } //#store out OUT
//#endif

//#if OP == gelu
// erfc by Chebyshev fitting, relative error below 1.2e-7 everywhere (Numerical Recipes in C, 2nd ed., 6.2):
// 1 + erf would lose the tail of gelu to cancellation.
fn erfc(v: f32) -> f32 {
  let z = abs(v);
  let t = 1.0 / (1.0 + 0.5 * z);
  let e = t * exp(-z * z - 1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
    + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))))))));
  return select(2.0 - e, e, v >= 0.0);
}
//#endif
//#if OP == tanh || OP == gelu_tanh
// The built-in tanh is allowed a large error and has one; exp is accurate, and the series covers what cancels.
fn tanh_of(v: f32) -> f32 {
  let a = min(abs(v), 15.0);
  let s = v * v;
  let e = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
  let series = v + v * s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869489)));
  return select(select(-e, e, v >= 0.0), series, a < 0.25);
}
//#endif

fn f(v: In) -> Out {
  //#if OP == copy
  //#if TO == float
  return Out(v);
  //#elif TO == int8
  //| return (v << 24u) >> 24u;
  //#elif TO == uint8
  //| return v & 255;
  //#elif TO == bool
  //| return select(0, 1, (bitcast<u32>(v) & 0x7fffffffu) != 0u);
  //#elif TO == bool_of_int
  //| return select(0, 1, v != 0);
  //#elif TO == int8_of_float
  //| return i32(clamp(v, -128.0, 127.0));
  //#elif TO == uint8_of_float
  //| return i32(clamp(v, 0.0, 255.0));
  //#endif
  //#elif OP == neg
  //| return -v;
  //#elif OP == exp
  //| return exp(v);
  //#elif OP == log
  //| return log(v);
  //#elif OP == tanh
  //| return tanh_of(v);
  //#elif OP == sigmoid
  //| return 1.0 / (1.0 + exp(-v));
  //#elif OP == sqrt
  //| return sqrt(v);
  //#elif OP == silu
  //| return v / (1.0 + exp(-v));
  //#elif OP == gelu
  //| return 0.5 * v * erfc(-0.70710678 * v);
  //#elif OP == gelu_tanh
  //| return 0.5 * v * (1.0 + tanh_of(0.79788456 * (v + 0.044715 * v * v * v)));
  //#elif OP == quick_gelu
  //| return v / (1.0 + exp(-1.702 * v));
  //#elif OP == relu
  //| return max(v, 0.0);
  //#endif
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var rest = id.y * p.pitch + id.x;
  if (rest >= p.count) { return; }
  var xi = p.x_offset;
  var oi = p.out_offset;
  //#unroll
  for (var d = 0u; d < RANK; d++) {
    let at = rest % p.shape[d / 4u][d % 4u];
    rest /= p.shape[d / 4u][d % 4u];
    xi += at * p.x_strides[d / 4u][d % 4u];
    oi += at * p.out_strides[d / 4u][d % 4u];
  }
  //#if PAIR
  //| out[oi >> 1u] = bits(f(load_x(xi))) | (bits(f(load_x(xi + p.x_step))) << 16u);
  //#else
  store_out(oi, f(load_x(xi)));
  //#endif
}
