// out = x * weight^T + bias with weights in 8 or 4 bits: x (M, G, 12 words) of quantize_rows.wgsl, weight
// (ceil(O / 4), G) records as quantized_layout.rs draws them, bias (O) -> out (M, O).
//
// A workgroup has 32 * RM rows by 64 outputs, an invocation 4 * RM by 4: products of 32 columns are summed as integers,
// exactly, and meet in float32. Tiles of 2 groups of 32 columns are staged in workgroup memory, 4 bits as 8. Sums of 4
// groups are added in order, which linear_quantized_few.wgsl does as well.

//#flags FORMAT=int8 HAS_BIAS=true PACKED_DOT=false
const RM: u32 = 1u; //#constant
const RECORD: u32 = 34u; //#constant
const VALUES: u32 = 2u; //#constant
const ROWS: u32 = 4u * RM;
const QUADS: u32 = 8u * RM; // of rows

struct Params {
  m: u32,
  groups: u32, // G
  o: u32,
  blocks: u32, // ceil(O / 4)
  bias_offset: u32,
  bias_stride: u32,
  out_offset: u32,
  out_row: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<u32>;
//#if HAS_BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; //#storage BIAS
//#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
var<workgroup> rows: array<vec4<u32>, 16u * QUADS>; // [2 groups][8 words][QUADS], a vector has four rows
var<workgroup> row_scales: array<vec4<f32>, 2u * QUADS>;
var<workgroup> tile: array<vec4<u32>, 256>; // [2 groups][8 words][16 blocks], a vector has four outputs
//#if FORMAT == int4
//| var<workgroup> corrections: array<vec4<i32>, 2u * QUADS>;
//#endif
//#if FORMAT != int8
//| var<workgroup> scales: array<vec4<f32>, 32>; // [2 groups][16 blocks]
//#endif

//#if HAS_BIAS
fn load_bias(i: u32) -> f32 { return bias[i]; } //#load bias BIAS
//#endif

// Sum of four products of signed bytes.
fn dot4(a: u32, b: u32) -> i32 {
  //#if PACKED_DOT
  //| return dot4I8Packed(a, b);
  //#else
  let left = vec4<u32>(24u, 16u, 8u, 0u);
  let right = vec4<u32>(24u);
  return dot(bitcast<vec4<i32>>(vec4<u32>(a) << left) >> right, bitcast<vec4<i32>>(vec4<u32>(b) << left) >> right);
  //#endif
}

fn dots(a: u32, w: vec4<u32>) -> vec4<i32> {
  return vec4<i32>(dot4(a, w.x), dot4(a, w.y), dot4(a, w.z), dot4(a, w.w));
}

// Word `word` of group g of four rows.
fn four_rows(row: u32, g: u32, word: u32) -> vec4<u32> {
  if (g >= p.groups) { return vec4<u32>(0u); }
  let base = (row * p.groups + g) * 12u + word;
  let step = p.groups * 12u;
  return vec4<u32>(
    select(0u, x[base], row < p.m),
    select(0u, x[base + step], row + 1u < p.m),
    select(0u, x[base + 2u * step], row + 2u < p.m),
    select(0u, x[base + 3u * step], row + 3u < p.m));
}

// Four words of a record.
fn four_words(block: u32, g: u32, word: u32) -> vec4<u32> {
  if (block >= p.blocks || g >= p.groups) { return vec4<u32>(0u); }
  let base = (block * p.groups + g) * RECORD + VALUES + word;
  return vec4<u32>(weight[base], weight[base + 1u], weight[base + 2u], weight[base + 3u]);
}

// n, but not to the compiler: software drivers unroll loops of constant length, and then compile for seconds.
fn rolled(n: u32) -> u32 { return min(n, n * p.m); }

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let tx = t % 16u;
  let ty = t / 16u;
  let row0 = wg.y * 32u * RM;
  let block0 = wg.x * 16u;
  var total: array<vec4<f32>, ROWS>; //#scalars
  var acc: array<vec4<f32>, ROWS>; //#scalars
  var sums: array<vec4<i32>, ROWS>; //#scalars
  for (var first = 0u; first < p.groups; first += 4u) {
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      acc[r] = vec4<f32>(0.0);
    }
    for (var g0 = first; g0 < min(first + 4u, p.groups); g0 += 2u) {
      workgroupBarrier();
      //#unroll DEEP
      for (var k = 0u; k < rolled(RM); k++) {
        let i = t + k * 128u;
        let quad = i / 8u % QUADS;
        let h = i / 8u / QUADS;
        rows[(h * 8u + i % 8u) * QUADS + quad] = four_rows(row0 + quad * 4u, g0 + h, i % 8u);
      }
      if (t < 2u * QUADS) {
        row_scales[t] = bitcast<vec4<f32>>(four_rows(row0 + t % QUADS * 4u, g0 + t / QUADS, 8u));
        //#if FORMAT == int4
        //| corrections[t] = bitcast<vec4<i32>>(four_rows(row0 + t % QUADS * 4u, g0 + t / QUADS, 9u));
        //#endif
      }
      //#if FORMAT == int4
      //| let words = four_words(block0 + t / 4u % 16u, g0 + t / 64u, t % 4u * 4u);
      //| let to = (t / 64u * 8u + t % 4u * 2u) * 16u + t / 4u % 16u;
      //| tile[to] = words & vec4<u32>(0x0f0f0f0fu);
      //| tile[to + 16u] = (words >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
      //#else
      //#unroll DEEP
      for (var k = 0u; k < rolled(2u); k++) {
        tile[(k * 8u + t % 8u) * 16u + t / 8u] = four_words(block0 + t / 8u, g0 + k, t % 8u * 4u);
      }
      //#endif
      //#if FORMAT != int8
      //| if (t < 32u) {
      //|   let block = min(block0 + tx, p.blocks - 1u);
      //|   let record = (block * p.groups + min(g0 + t / 16u, p.groups - 1u)) * RECORD;
      //|   scales[t] = vec4<f32>(unpack2x16float(weight[record]), unpack2x16float(weight[record + 1u]));
      //| }
      //#endif
      workgroupBarrier();
      //#unroll DEEP
      for (var h = 0u; h < rolled(2u); h++) {
        //#unroll
        for (var r = 0u; r < ROWS; r++) {
          sums[r] = vec4<i32>(0);
        }
        //#unroll DEEP
        for (var s = 0u; s < rolled(8u); s++) {
          let w = tile[(h * 8u + s) * 16u + tx];
          //#unroll
          for (var q = 0u; q < RM; q++) {
            let v = rows[(h * 8u + s) * QUADS + ty * RM + q];
            sums[q * 4u] += dots(v.x, w);
            sums[q * 4u + 1u] += dots(v.y, w);
            sums[q * 4u + 2u] += dots(v.z, w);
            sums[q * 4u + 3u] += dots(v.w, w);
          }
        }
        //#unroll
        for (var q = 0u; q < RM; q++) {
          let at = h * QUADS + ty * RM + q;
          let scale = row_scales[at];
          //#unroll
          for (var j = 0u; j < 4u; j++) {
            //#if FORMAT == int8
            acc[q * 4u + j] = fma(vec4<f32>(sums[q * 4u + j]), vec4<f32>(scale[j]), acc[q * 4u + j]);
            //#elif FORMAT == int4
            //| let exact = vec4<f32>(sums[q * 4u + j] + vec4<i32>(corrections[at][j]));
            //| acc[q * 4u + j] = fma(exact, scale[j] * scales[h * 16u + tx], acc[q * 4u + j]);
            //#else
            //| acc[q * 4u + j] = fma(vec4<f32>(sums[q * 4u + j]), scale[j] * scales[h * 16u + tx], acc[q * 4u + j]);
            //#endif
          }
        }
      }
    }
    //#unroll
    for (var r = 0u; r < ROWS; r++) {
      total[r] += acc[r];
    }
  }
  //#unroll DEEP
  for (var c = 0u; c < rolled(4u); c++) {
    let o = (block0 + tx) * 4u + c;
    if (o < p.o) {
      //#if HAS_BIAS
      let shift = load_bias(p.bias_offset + o * p.bias_stride);
      //#else
      //| let shift = 0.0;
      //#endif
      //#if FORMAT == int8
      let scale = bitcast<f32>(weight[p.blocks * p.groups * RECORD + o]);
      //#endif
      //#unroll
      for (var r = 0u; r < ROWS; r++) {
        let row = row0 + ty * ROWS + r;
        if (row < p.m) {
          //#if FORMAT == int8
          out[p.out_offset + row * p.out_row + o] = fma(total[r][c], scale, shift);
          //#else
          //| out[p.out_offset + row * p.out_row + o] = total[r][c] + shift;
          //#endif
        }
      }
    }
  }
}
