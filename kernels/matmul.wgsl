// out = a * b (+ bias): a (batch, M, N), b (batch, N, P) by strides, so a transposed b is the same kernel.
//
// 4 x 4 results per invocation in registers, or 8 x 8 where there are many (RM and RN groups of four); tiles of a
// (TY*4*RM rows) and b (64*RN columns), 16 of N deep, staged through workgroup memory as vec4 of four rows or columns,
// so 64 multiply-adds cost four loads. VECTOR_A and VECTOR_B read four elements at once. PREFETCH has the next tiles on
// their way into registers while those in workgroup memory are multiplied: a tile of 8 x 8 an invocation leaves room for
// one workgroup on a core, and nothing else to do while it waits. A tile is an array of arrays, because what bounds are
// checked with then depends on the lane alone: the check is done once and not at every load.
// N is summed in segments of 256, in order: linear.wgsl adds in exactly this order, hence a row's result does
// not depend on how many rows there are.
//
// Length: every way of loading a tile, by vectors or not, ahead or not.

//#flags HAS_BIAS=true ALONG_P=true VECTOR_A=false VECTOR_B=false PREFETCH=false
const TY: u32 = 16u; //#constant
const RM: u32 = 1u; //#constant
const RN: u32 = 1u; //#constant
const STEP: u32 = 16u;
const THREADS: u32 = TY * 16u;
const A_WIDTH: u32 = TY * RM;
const A_TILE: u32 = STEP * A_WIDTH;
const A_TURNS: u32 = (A_TILE + THREADS - 1u) / THREADS;
const A_QUADS: u32 = (A_TILE / 4u + THREADS - 1u) / THREADS;
const B_WIDTH: u32 = 16u * RN;
const B_TILE: u32 = STEP * B_WIDTH;
const B_TURNS: u32 = (B_TILE + THREADS - 1u) / THREADS;
const B_QUADS: u32 = (B_TILE / 4u + THREADS - 1u) / THREADS;
const TOTALS: u32 = 4u * RM * RN;

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
var<workgroup> tile_a: array<array<vec4<f32>, A_WIDTH>, STEP>; // of four rows
var<workgroup> tile_b: array<array<vec4<f32>, B_WIDTH>, STEP>; // of four columns

//#if VECTOR_A
//| fn load_a4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(0.0); } //#load4 a A
//#else
fn load_a(i: u32) -> f32 { return a[i]; } //#load a A
//#endif
//#if VECTOR_B
//| fn load_b4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(0.0); } //#load4 b B
//#else
fn load_b(i: u32) -> f32 { return b[i]; } //#load b B
//#endif
//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

//#if VECTOR_A
//| // Four along N.
//| fn a4_at(base: u32, row: u32, k: u32) -> vec4<f32> {
  //| if (row < p.m && k < p.n) { return load_a4(base + row * p.a_m + k, 4u); }
  //| return vec4<f32>(0.0);
//| }
//#else
fn a_at(base: u32, row: u32, k: u32) -> f32 {
  if (row < p.m && k < p.n) { return load_a(base + row * p.a_m + k * p.a_n); }
  return 0.0;
}
//#endif

//#if VECTOR_B
//| // Four along P, or along N.
//| fn b4_at(base: u32, k: u32, col: u32) -> vec4<f32> {
  //| if (col < p.p && k < p.n) { return load_b4(base + k * p.b_n + col * p.b_p, 4u); }
  //| return vec4<f32>(0.0);
//| }
//#else
fn b_at(base: u32, k: u32, col: u32) -> f32 {
  if (col < p.p && k < p.n) { return load_b(base + k * p.b_n + col * p.b_p); }
  return 0.0;
}
//#endif

//#if VECTOR_A
//| // Row r of the i-th 4 x 4 block of a tile of a that begins at (row0, k0).
//| fn a_block(base: u32, row0: u32, k0: u32, i: u32, r: u32) -> vec4<f32> {
  //| return a4_at(base, row0 + i / 4u * 4u + r, k0 + i % 4u * 4u);
//| }
//| fn store_a(i: u32, x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>) {
  //| let k = i % 4u * 4u;
  //| let g = i / 4u;
  //| tile_a[k][g] = vec4<f32>(x0.x, x1.x, x2.x, x3.x);
  //| tile_a[k + 1u][g] = vec4<f32>(x0.y, x1.y, x2.y, x3.y);
  //| tile_a[k + 2u][g] = vec4<f32>(x0.z, x1.z, x2.z, x3.z);
  //| tile_a[k + 3u][g] = vec4<f32>(x0.w, x1.w, x2.w, x3.w);
//| }
//#endif
//#if VECTOR_B && ALONG_P
//| // The i-th vector of a tile of b that begins at (k0, col0).
//| fn b_vector(base: u32, k0: u32, col0: u32, i: u32) -> vec4<f32> {
  //| return b4_at(base, k0 + i / B_WIDTH, col0 + i % B_WIDTH * 4u);
//| }
//#elif VECTOR_B
//| // Column r of the i-th 4 x 4 block of a tile of b that begins at (k0, col0).
//| fn b_block(base: u32, k0: u32, col0: u32, i: u32, r: u32) -> vec4<f32> {
  //| return b4_at(base, k0 + i % 4u * 4u, col0 + i / 4u * 4u + r);
//| }
//| fn store_b(i: u32, x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>) {
  //| let k = i % 4u * 4u;
  //| let g = i / 4u;
  //| tile_b[k][g] = vec4<f32>(x0.x, x1.x, x2.x, x3.x);
  //| tile_b[k + 1u][g] = vec4<f32>(x0.y, x1.y, x2.y, x3.y);
  //| tile_b[k + 2u][g] = vec4<f32>(x0.z, x1.z, x2.z, x3.z);
  //| tile_b[k + 3u][g] = vec4<f32>(x0.w, x1.w, x2.w, x3.w);
//| }
//#endif
//#if PREFETCH && !ALONG_P
//| // The first half of the invocations has a block of a, the other one of b.
//| fn block_of(t: u32, a_base: u32, b_base: u32, row0: u32, col0: u32, k0: u32, r: u32) -> vec4<f32> {
  //| if (t < A_TILE / 4u) { return a_block(a_base, row0, k0, t, r); }
  //| return b_block(b_base, k0, col0, t - A_TILE / 4u, r);
//| }
//#endif

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
  let row0 = wg.y * A_WIDTH * 4u;
  let col0 = wg.x * B_WIDTH * 4u;
  let ty = t / 16u;
  let tx = t % 16u;
  var acc: array<vec4<f32>, TOTALS>; //#scalars
  var total: array<vec4<f32>, TOTALS>; //#scalars
  var av: array<vec4<f32>, RM>; //#scalars
  var bv: array<vec4<f32>, RN>; //#scalars

  //#if PREFETCH
  //| var next: array<vec4<f32>, 4>; //#scalars
  //| //#unroll
  //| for (var r = 0u; r < 4u; r++) {
    //#if ALONG_P
    //| if (t < A_TILE / 4u) { next[r] = a_block(a_base, row0, 0u, t, r); }
    //#else
    //| next[r] = block_of(t, a_base, b_base, row0, col0, 0u, r);
    //#endif
  //| }
  //#endif
  //#if PREFETCH && ALONG_P
  //| var next_b: array<vec4<f32>, B_TURNS>; //#scalars
  //| //#unroll
  //| for (var s = 0u; s < B_TURNS; s++) {
    //| next_b[s] = b_vector(b_base, 0u, col0, t + s * THREADS);
  //| }
  //#endif

  for (var segment = 0u; segment < p.n; segment += 256u) {
    let end = min(p.n, segment + 256u);
    //#unroll
    for (var r = 0u; r < TOTALS; r++) {
      acc[r] = vec4<f32>(0.0);
    }
    for (var k0 = segment; k0 < end; k0 += STEP) {
      workgroupBarrier();
      //#if PREFETCH && ALONG_P
      //| if (t < A_TILE / 4u) { store_a(t, next[0], next[1], next[2], next[3]); }
      //| //#unroll
      //| for (var s = 0u; s < B_TURNS; s++) {
        //| let i = t + s * THREADS;
        //| tile_b[i / B_WIDTH][i % B_WIDTH] = next_b[s];
      //| }
      //#elif PREFETCH
      //| if (t < A_TILE / 4u) {
        //| store_a(t, next[0], next[1], next[2], next[3]);
      //| } else {
        //| store_b(t - A_TILE / 4u, next[0], next[1], next[2], next[3]);
      //| }
      //#endif
      //#if VECTOR_A && !PREFETCH
      //| //#unroll DEEP
      //| for (var s = 0u; s < rolled(A_QUADS); s++) {
        //| let i = t + s * THREADS;
        //| if (i < A_TILE / 4u) {
          //| store_a(i, a_block(a_base, row0, k0, i, 0u), a_block(a_base, row0, k0, i, 1u), a_block(a_base, row0, k0, i, 2u), a_block(a_base, row0, k0, i, 3u));
        //| }
      //| }
      //#elif !PREFETCH
      //#unroll DEEP
      for (var s = 0u; s < rolled(A_TURNS); s++) {
        let i = t + s * THREADS;
        let k = k0 + i % STEP;
        let row = row0 + i / STEP * 4u;
        if (i < A_TILE) {
          tile_a[i % STEP][i / STEP] = vec4<f32>(a_at(a_base, row, k), a_at(a_base, row + 1u, k), a_at(a_base, row + 2u, k), a_at(a_base, row + 3u, k));
        }
      }
      //#endif
      //#if VECTOR_B && ALONG_P && !PREFETCH
      //| //#unroll DEEP
      //| for (var s = 0u; s < rolled(B_TURNS); s++) {
        //| let i = t + s * THREADS;
        //| tile_b[i / B_WIDTH][i % B_WIDTH] = b_vector(b_base, k0, col0, i);
      //| }
      //#elif VECTOR_B && !PREFETCH
      //| //#unroll DEEP
      //| for (var s = 0u; s < rolled(B_QUADS); s++) {
        //| let i = t + s * THREADS;
        //| if (i < B_TILE / 4u) {
          //| store_b(i, b_block(b_base, k0, col0, i, 0u), b_block(b_base, k0, col0, i, 1u), b_block(b_base, k0, col0, i, 2u), b_block(b_base, k0, col0, i, 3u));
        //| }
      //| }
      //#elif !PREFETCH
      //#unroll DEEP
      for (var s = 0u; s < rolled(B_TURNS); s++) {
        let i = t + s * THREADS;
        //#if ALONG_P
        let k = i / B_WIDTH;
        let c = i % B_WIDTH;
        //#else
        //| let k = i % STEP;
        //| let c = i / STEP;
        //#endif
        let col = col0 + c * 4u;
        tile_b[k][c] = vec4<f32>(b_at(b_base, k0 + k, col), b_at(b_base, k0 + k, col + 1u), b_at(b_base, k0 + k, col + 2u), b_at(b_base, k0 + k, col + 3u));
      }
      //#endif
      workgroupBarrier();
      //#if PREFETCH && ALONG_P
      //| //#unroll
      //| for (var r = 0u; r < 4u; r++) {
        //| if (t < A_TILE / 4u) { next[r] = a_block(a_base, row0, k0 + STEP, t, r); }
      //| }
      //| //#unroll
      //| for (var s = 0u; s < B_TURNS; s++) {
        //| next_b[s] = b_vector(b_base, k0 + STEP, col0, t + s * THREADS);
      //| }
      //#elif PREFETCH
      //| //#unroll
      //| for (var r = 0u; r < 4u; r++) {
        //| next[r] = block_of(t, a_base, b_base, row0, col0, k0 + STEP, r);
      //| }
      //#endif
      //#unroll DEEP
      for (var k = 0u; k < rolled(STEP); k++) {
        //#unroll
        for (var g = 0u; g < RM; g++) {
          av[g] = tile_a[k][ty + g * TY];
        }
        //#unroll
        for (var c = 0u; c < RN; c++) {
          bv[c] = tile_b[k][tx + c * 16u];
        }
        //#unroll
        for (var g = 0u; g < RM; g++) {
          //#unroll
          for (var c = 0u; c < RN; c++) {
            acc[(g * 4u) * RN + c] = fma(vec4<f32>(av[g].x), bv[c], acc[(g * 4u) * RN + c]);
            acc[(g * 4u + 1u) * RN + c] = fma(vec4<f32>(av[g].y), bv[c], acc[(g * 4u + 1u) * RN + c]);
            acc[(g * 4u + 2u) * RN + c] = fma(vec4<f32>(av[g].z), bv[c], acc[(g * 4u + 2u) * RN + c]);
            acc[(g * 4u + 3u) * RN + c] = fma(vec4<f32>(av[g].w), bv[c], acc[(g * 4u + 3u) * RN + c]);
          }
        }
      }
    }
    //#unroll
    for (var r = 0u; r < TOTALS; r++) {
      total[r] += acc[r];
    }
  }

  //#unroll
  for (var g = 0u; g < RM; g++) {
    //#unroll
    for (var c = 0u; c < RN; c++) {
      //#unroll DEEP
      for (var r = 0u; r < rolled(4u); r++) {
        let row = row0 + (ty + g * TY) * 4u + r;
        let col = col0 + (tx + c * 16u) * 4u;
        let x = pick(r, total[(g * 4u) * RN + c], total[(g * 4u + 1u) * RN + c], total[(g * 4u + 2u) * RN + c], total[(g * 4u + 3u) * RN + c]);
        let base = out_base + row * p.out_m;
        //#unroll DEEP
        for (var i = 0u; i < rolled(4u); i++) {
          if (row < p.m && col + i < p.p) {
            //#if HAS_BIAS
            out[base + (col + i) * p.out_p] = x[i] + load_bias(p.bias_offset + (col + i) * p.bias_stride);
            //#else
            //| out[base + (col + i) * p.out_p] = x[i];
            //#endif
          }
        }
      }
    }
  }
}
