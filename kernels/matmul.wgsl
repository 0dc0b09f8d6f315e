// out = a * b (+ bias): a (batch, M, N), b (batch, N, P) by strides, so a transposed b is the same kernel.
//
// 4 x 4 results per invocation in registers; tiles of a (TY*4 rows) and b (64 columns), 16 of N deep, staged
// through workgroup memory as vec4 of four rows or columns, so 16 multiply-adds cost two loads.
// N is summed in segments of 256, in order: linear.wgsl adds in exactly this order, hence a row's result does
// not depend on how many rows there are.

//#flags HAS_BIAS=true ALONG_P=true
const TY: u32 = 16u; //#constant
const STEP: u32 = 16u;
const THREADS: u32 = TY * 16u;
const A_TILE: u32 = STEP * TY;
const A_TURNS: u32 = (A_TILE + THREADS - 1u) / THREADS;
const B_TILE: u32 = STEP * 16u;
const B_TURNS: u32 = (B_TILE + THREADS - 1u) / THREADS;

struct Params {
  batch_shape: vec4<u32>, // innermost first
  a_batch: vec4<u32>,
  b_batch: vec4<u32>,
  out_batch: vec4<u32>,
  first_batch: u32,
  m: u32,
  n: u32,
  p: u32,
  a_offset: u32,
  a_m: u32,
  a_n: u32,
  b_offset: u32,
  b_n: u32,
  b_p: u32,
  out_offset: u32,
  out_m: u32,
  out_p: u32,
  bias_offset: u32,
  bias_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>; //#storage A
@group(0) @binding(2) var<storage, read> b: array<f32>; //#storage B
//#if HAS_BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; //#storage BIAS
//#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
var<workgroup> tile_a: array<vec4<f32>, A_TILE>; // [STEP][TY] of four rows
var<workgroup> tile_b: array<vec4<f32>, B_TILE>; // [STEP][16] of four columns

fn load_a(i: u32) -> f32 { return a[i]; } //#load a A
fn load_b(i: u32) -> f32 { return b[i]; } //#load b B
//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

fn a_at(base: u32, row: u32, k: u32) -> f32 {
  if (row < p.m && k < p.n) { return load_a(base + row * p.a_m + k * p.a_n); }
  return 0.0;
}

fn b_at(base: u32, k: u32, col: u32) -> f32 {
  if (col < p.p && k < p.n) { return load_b(base + k * p.b_n + col * p.b_p); }
  return 0.0;
}

// n, but not to the compiler: software drivers unroll loops of constant length, and then compile for seconds.
fn rolled(n: u32) -> u32 { return min(n, n * p.m); }

fn pick(i: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
  return select(select(a, b, i == 1u), select(c, d, i == 3u), i >= 2u);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  var rest = p.first_batch + wg.z;
  var a_base = p.a_offset;
  var b_base = p.b_offset;
  var out_base = p.out_offset;
  //#unroll
  for (var d = 0u; d < 4u; d++) {
    let at = rest % p.batch_shape[d];
    rest /= p.batch_shape[d];
    a_base += at * p.a_batch[d];
    b_base += at * p.b_batch[d];
    out_base += at * p.out_batch[d];
  }
  let row0 = wg.y * TY * 4u;
  let col0 = wg.x * 64u;
  let ty = t / 16u;
  let tx = t % 16u;
  var acc: array<vec4<f32>, 4>; //#scalars
  var total: array<vec4<f32>, 4>; //#scalars

  for (var segment = 0u; segment < p.n; segment += 256u) {
    let end = min(p.n, segment + 256u);
    //#unroll
    for (var r = 0u; r < 4u; r++) {
      acc[r] = vec4<f32>(0.0);
    }
    for (var k0 = segment; k0 < end; k0 += STEP) {
      workgroupBarrier();
      //#unroll DEEP
      for (var s = 0u; s < rolled(A_TURNS); s++) {
        let i = t + s * THREADS;
        let k = k0 + i % STEP;
        let row = row0 + i / STEP * 4u;
        if (i < A_TILE) {
          tile_a[i % STEP * TY + i / STEP] = vec4<f32>(a_at(a_base, row, k), a_at(a_base, row + 1u, k), a_at(a_base, row + 2u, k), a_at(a_base, row + 3u, k));
        }
      }
      //#unroll DEEP
      for (var s = 0u; s < rolled(B_TURNS); s++) {
        let i = t + s * THREADS;
        //#if ALONG_P
        let k = i / 16u;
        let c = i % 16u;
        //#else
        //| let k = i % STEP;
        //| let c = i / STEP;
        //#endif
        let col = col0 + c * 4u;
        tile_b[k * 16u + c] = vec4<f32>(b_at(b_base, k0 + k, col), b_at(b_base, k0 + k, col + 1u), b_at(b_base, k0 + k, col + 2u), b_at(b_base, k0 + k, col + 3u));
      }
      workgroupBarrier();
      //#unroll DEEP
      for (var k = 0u; k < rolled(STEP); k++) {
        let av = tile_a[k * TY + ty];
        let bv = tile_b[k * 16u + tx];
        acc[0] = fma(vec4<f32>(av.x), bv, acc[0]);
        acc[1] = fma(vec4<f32>(av.y), bv, acc[1]);
        acc[2] = fma(vec4<f32>(av.z), bv, acc[2]);
        acc[3] = fma(vec4<f32>(av.w), bv, acc[3]);
      }
    }
    //#unroll
    for (var r = 0u; r < 4u; r++) {
      total[r] += acc[r];
    }
  }

  let col = col0 + tx * 4u;
  //#unroll DEEP
  for (var r = 0u; r < rolled(4u); r++) {
    let row = row0 + ty * 4u + r;
    if (row < p.m) {
      let x = pick(r, total[0], total[1], total[2], total[3]);
      let base = out_base + row * p.out_m;
      //#unroll DEEP
      for (var c = 0u; c < rolled(4u); c++) {
        if (col + c < p.p) {
          //#if HAS_BIAS
          out[base + (col + c) * p.out_p] = x[c] + load_bias(p.bias_offset + (col + c) * p.bias_stride);
          //#else
          //| out[base + (col + c) * p.out_p] = x[c];
          //#endif
        }
      }
    }
  }
}
