// Fused attention with an online softmax (Milakov & Gimelshein 2018; Dao 2023, FlashAttention-2): scores live
// in registers and 32 keys at a time, so memory does not grow with K.
//
// Over one query row per invocation: 4 or 8 rows x 4 scores and as many rows of outputs per invocation (RV), so that a
// vector loaded from workgroup memory feeds 16 or 32 multiply-adds; one region of workgroup memory serves queries and
// keys, then weights and values; the output stays unnormalised to the end; row sums are joined across invocations
// once, not per block; blocks of keys that causal or window limits hide are skipped. With few queries, the heads that
// share a key/value head are rows of one tile. Inner loops are unrolled: indices are constants, nothing spills.
// SHUFFLE joins maxima and sums of a row group within a subgroup, without workgroup memory. RESIDENT keeps the queries of a tile in workgroup memory from first to last where there is room for them.
//
// flash_attention_2 is the above. 3 adds OVERLAP (after Shah et al. 2024): the next keys or values are on their way
// into registers while the products of those in workgroup memory run. 4 adds LAZY (after FlashAttention-4): half of the
// exponentials are polynomials on the multiply-add units, and earlier output is scaled only where a row's maximum grew
// by more than a factor of 2^8.
//
// WIDE: workgroup memory is rows of 17 vectors, 16 and a pad. An index into a row or of a row is then either a constant or
// depends on the invocation alone, so that bounds are checked once and not at every load of a product.
//
// A key block always starts at a multiple of 32 and a row only ever adds exact zeros for keys it cannot see, so
// its result does not depend on the rows beside it, nor on the tile sizes.
//
// With few queries and many keys a tile would leave most of a GPU idle: SPLIT gives ranges of keys to different
// workgroups and leaves the joining to flash_merge.wgsl (Flash-Decoding, Dao et al. 2023).
//
// BLOCKS: a mask by blocks, as lists of the blocks of keys that a block of queries sees (FlexAttention,
// https://arxiv.org/abs/2412.05496). Each row walks its list; a tile goes straight to the next 32 keys that any of its
// rows lists, and a key that none of them sees is not read. The mask of 32 keys is a word a row.
//
// Length: one kernel with all its mask forms, read from top to bottom.

//#flags WIDE=false SCALED=false OVERLAP=false LAZY=false RESIDENT=false SPLIT=false BLOCKS=true SOFTCAP=true CAUSAL=true LEFT=true RIGHT=true PADDING=true ZERO_QUERIES=true MASK=additive SINKS=true LSE=true OUT4=false SHUFFLE=false
const D: u32 = 64u; //#constant
const DV: u32 = 64u; //#constant
const TY: u32 = 16u; //#constant
const RV: u32 = 1u; //#constant
const DC: u32 = 8u; //#constant
const VC: u32 = 16u; //#constant
// Derived: tile of BQ queries x 32 keys, TY x 8 invocations with R = 4 RV rows each; the last dimensions in vec4.
const R: u32 = RV * 4u;
const BQ: u32 = TY * R;
const BK: u32 = 32u;
const THREADS: u32 = TY * 8u;
const D4: u32 = (D + 3u) / 4u;
const DV4: u32 = (DV + 3u) / 4u;
const NI: u32 = (DV4 + 7u) / 8u;
const PITCH: u32 = DC + 1u; // padded against bank conflicts
const P_PITCH: u32 = TY * RV + 1u;
const Q_WIDTH: u32 = (D4 + DC - 1u) / DC * DC;
//#if WIDE
//| // Rows: queries by chunks of DC, keys; then weights, and values two groups of eight to a row.
//#if RESIDENT
//| const KEYS: u32 = BQ * Q_WIDTH / DC;
//| const WEIGHTS: u32 = KEYS;
//#else
//| const KEYS: u32 = BQ;
//| const WEIGHTS: u32 = 0u;
//#endif
//| const QK_SIZE: u32 = KEYS + BK;
//| const VALUES: u32 = WEIGHTS + BK;
//| const PV_SIZE: u32 = VALUES + (VC * NI + 1u) / 2u;
//#else
//#if RESIDENT
//| const Q_PITCH: u32 = Q_WIDTH + 1u;
//| const WEIGHTS: u32 = BQ * Q_PITCH;
//#else
const Q_PITCH: u32 = PITCH;
const WEIGHTS: u32 = 0u;
//#endif
const KEYS: u32 = BQ * Q_PITCH;
const QK_SIZE: u32 = KEYS + BK * PITCH;
const VALUES: u32 = WEIGHTS + BK * P_PITCH;
const PV_SIZE: u32 = VALUES + VC * DV4;
//#endif
const STAGE: u32 = max(QK_SIZE, PV_SIZE);
const JOINT: u32 = THREADS * RV;
const Q_TURNS: u32 = (BQ * DC + THREADS - 1u) / THREADS;
const K_TURNS: u32 = (BK * DC + THREADS - 1u) / THREADS;
const V_TURNS: u32 = (VC * DV4 + THREADS - 1u) / THREADS;
const NONE: u32 = 0x7fffffffu;
const LOWEST: f32 = -3.4028234e38;
const GROWTH: f32 = 5.5451774; // ln 2^8

struct Params {
  q: u32,
  k: u32,
  heads: u32,
  groups: u32, // H / Hkv
  pack: u32, // query heads per tile: groups or 1
  q_offset: u32,
  q_b: u32,
  q_h: u32,
  q_n: u32,
  k_offset: u32,
  k_b: u32,
  k_h: u32,
  k_n: u32,
  v_offset: u32,
  v_b: u32,
  v_h: u32,
  v_n: u32,
  key_scales_offset: u32, // SCALED
  key_scales_b: u32,
  key_scales_h: u32,
  key_scales_n: u32,
  value_scales_offset: u32,
  value_scales_b: u32,
  value_scales_h: u32,
  value_scales_n: u32,
  out_offset: u32,
  lse_offset: u32,
  padding_offset: u32,
  padding_b: u32,
  padding_k: u32,
  mask_offset: u32,
  mask_b: u32,
  mask_h: u32,
  mask_q: u32,
  mask_k: u32,
  sinks_offset: u32,
  sinks_stride: u32,
  query_offset: i32,
  window_left: i32,
  window_right: i32,
  scaling: f32,
  softcap: f32,
  splits: u32,
  split_keys: u32, // a multiple of BK
  block_q: u32, // queries and keys of a block
  block_k: u32,
  lists_offset: u32,
  list_b: u32,
  list_h: u32,
  list_q: u32,
  entries_offset: u32,
  bits_offset: u32,
  bits_block: u32,
  bits_q: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> query: array<f32>; //#storage QUERY
@group(0) @binding(2) var<storage, read> key: array<f32>; //#storage KEY
@group(0) @binding(3) var<storage, read> value: array<f32>; //#storage VALUE
//#if SPLIT
//| @group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>; // (B, H, Q, splits, 1 + DV4): (m, l, 0, 0), then the sum
//#elif OUT4
//| @group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // (B, Q, H, Dv)
//#else
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (B, Q, H, Dv)
//#endif
//#if LSE
@group(0) @binding(5) var<storage, read_write> lse: array<u32>; // (B, H, Q), bits of f32
//#endif
//#if PADDING
@group(0) @binding(6) var<storage, read> padding: array<u32>; // (B, K), 1 = real key
//#endif
//#if MASK != none
@group(0) @binding(7) var<storage, read> mask: array<u32>; // (B, H, Q, K) by strides: 1 = visible, or bits of an f32 bias
//#endif
//#if SINKS
@group(0) @binding(8) var<storage, read> sinks: array<f32>; // (H)
//#endif
//#if SCALED
//| @group(0) @binding(11) var<storage, read> key_scales: array<f32>; // (B, Hkv, K) by strides, as the next
//| @group(0) @binding(12) var<storage, read> value_scales: array<f32>;
//| var<private> key_scale: u32; // of this head's first row
//| var<private> value_scale: u32;
//#endif
//#if BLOCKS
@group(0) @binding(9) var<storage, read> lists: array<u32>; // (B, H, query blocks, 2) by strides, and entries (n, 2): a block of keys, its bits or -1
@group(0) @binding(10) var<storage, read> bits: array<u32>; // (m, block_q, bytes), a byte a word: bit j % 8 of byte j / 8 is key j of the block
var<workgroup> shown: array<u32, BQ>; // keys j0...j0 + 31 that a row sees
var<workgroup> any_shown: atomic<u32>;
var<workgroup> soonest: atomic<u32>; // first key of the next tile that a row of this one lists
var<workgroup> next_tile: u32;
//#endif
//#if WIDE
//| var<workgroup> stage: array<array<vec4<f32>, 17>, STAGE>;
//#else
var<workgroup> stage: array<vec4<f32>, STAGE>; // queries [BQ][Q_PITCH] and keys [BK][PITCH], then weights [BK][P_PITCH] of four rows and values [VC][DV4]
//#endif
var<workgroup> joint: array<vec4<f32>, JOINT>; // RV vec4 of four rows per invocation

fn query4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(query[i], select(0.0, query[i + 1u], n > 1u), select(0.0, query[i + 2u], n > 2u), select(0.0, query[i + 3u], n > 3u)); } //#load4 query QUERY
fn key4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(key[i], select(0.0, key[i + 1u], n > 1u), select(0.0, key[i + 2u], n > 2u), select(0.0, key[i + 3u], n > 3u)); } //#load4 key KEY
fn value4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(value[i], select(0.0, value[i + 1u], n > 1u), select(0.0, value[i + 2u], n > 2u), select(0.0, value[i + 3u], n > 3u)); } //#load4 value VALUE

//#if BLOCKS
fn is_read(j: u32, bit: u32) -> bool { return j < p.k && ((atomicLoad(&any_shown) >> bit) & 1u) != 0u; }
//#else
//| fn is_read(j: u32, bit: u32) -> bool { return j < p.k; }
//#endif

// What workgroup memory holds: columns d of the chunk of queries and keys, the weights of four rows, elements of values.
//#if WIDE
//| fn put_query(chunk: u32, row: u32, d: u32, x: vec4<f32>) { stage[chunk * BQ + row][d] = x; }
//| fn put_key(key: u32, d: u32, x: vec4<f32>) { stage[KEYS + key][d] = x; }
//| fn put_weight(key: u32, rows: u32, x: vec4<f32>) { stage[WEIGHTS + key][rows] = x; }
//| fn put_value(key: u32, i: u32, x: vec4<f32>) {
  //| let group = key * NI + i / 8u;
  //| stage[VALUES + group / 2u][group % 2u * 8u + i % 8u] = x;
//| }
//| fn staged_query(chunk: u32, row: u32, d: u32) -> vec4<f32> { return stage[chunk * BQ + row][d]; }
//| fn staged_key(key: u32, d: u32) -> vec4<f32> { return stage[KEYS + key][d]; }
//| fn staged_weight(key: u32, rows: u32) -> vec4<f32> { return stage[WEIGHTS + key][rows]; }
//| fn staged_value(key: u32, lane: u32, i: u32) -> vec4<f32> {
  //| let group = key * NI + i;
  //| return stage[VALUES + group / 2u][lane + group % 2u * 8u];
//| }
//#else
fn put_query(chunk: u32, row: u32, d: u32, x: vec4<f32>) { stage[row * Q_PITCH + chunk * DC + d] = x; }
fn put_key(key: u32, d: u32, x: vec4<f32>) { stage[KEYS + key * PITCH + d] = x; }
fn put_weight(key: u32, rows: u32, x: vec4<f32>) { stage[WEIGHTS + key * P_PITCH + rows] = x; }
fn put_value(key: u32, i: u32, x: vec4<f32>) { stage[VALUES + key * DV4 + i] = x; }
fn staged_query(chunk: u32, row: u32, d: u32) -> vec4<f32> { return stage[row * Q_PITCH + chunk * DC + d]; }
fn staged_key(key: u32, d: u32) -> vec4<f32> { return stage[KEYS + key * PITCH + d]; }
fn staged_weight(key: u32, rows: u32) -> vec4<f32> { return stage[WEIGHTS + key * P_PITCH + rows]; }
fn staged_value(key: u32, lane: u32, i: u32) -> vec4<f32> { return stage[VALUES + key * DV4 + lane + i * 8u]; }
//#endif

// All reading of keys and values: elements d...d + 3 of row j, the bit-th of its tile, zeros where there is nothing to see.
fn key_of(base: u32, j: u32, bit: u32, d: u32) -> vec4<f32> {
  if (d >= D || !is_read(j, bit)) { return vec4<f32>(0.0); }
  //#if SCALED
  //| return key4(base + j * p.k_n + d, D - d) * key_scales[key_scale + j * p.key_scales_n];
  //#else
  return key4(base + j * p.k_n + d, D - d);
  //#endif
}
fn value_of(base: u32, j: u32, bit: u32, d: u32) -> vec4<f32> {
  if (d >= DV || !is_read(j, bit)) { return vec4<f32>(0.0); }
  //#if SCALED
  //| return value4(base + j * p.v_n + d, DV - d) * value_scales[value_scale + j * p.value_scales_n];
  //#else
  return value4(base + j * p.v_n + d, DV - d);
  //#endif
}
fn query_of(b: u32, head0: u32, line: u32, d: u32) -> vec4<f32> {
  if (d >= D || line >= p.q * p.pack) { return vec4<f32>(0.0); }
  return query4(p.q_offset + b * p.q_b + (head0 + line / p.q) * p.q_h + line % p.q * p.q_n + d, D - d);
}

//#if LAZY
//| // exp for x <= 0 without the unit for it: 2^n by the exponent's bits, the rest by a polynomial, 5e-9 off before rounding.
//| fn exp_by_polynomial(x: vec4<f32>) -> vec4<f32> {
  //| let y = max(x, vec4<f32>(-87.0)) * 1.44269504;
  //| let n = round(y);
  //| let f = y - n;
  //| var v = fma(f, vec4<f32>(0.000154531629), vec4<f32>(0.00133908634));
  //| v = fma(f, v, vec4<f32>(0.00961808256));
  //| v = fma(f, v, vec4<f32>(0.0555035711));
  //| v = fma(f, v, vec4<f32>(0.240226508));
  //| v = fma(f, v, vec4<f32>(0.693147188));
  //| v = fma(f, v, vec4<f32>(1.0));
  //| return bitcast<vec4<f32>>(bitcast<vec4<i32>>(v) + (vec4<i32>(n) << vec4<u32>(23u)));
//| }
//#endif

//#if SOFTCAP
// The built-in tanh is allowed a large error and has one; exp is accurate, and the series covers what cancels.
fn tanh_of(v: vec4<f32>) -> vec4<f32> {
  let a = min(abs(v), vec4<f32>(15.0));
  let s = v * v;
  let e = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
  let series = v + v * s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869489)));
  return select(select(-e, e, v >= vec4<f32>(0.0)), series, a < vec4<f32>(0.25));
}
//#endif

// n, but not to the compiler: software drivers unroll loops of constant length, and then compile for seconds.
fn rolled(n: u32) -> u32 { return min(n, n * p.heads); }

//#if BLOCKS
// The lowest n bits, n <= 32.
fn low(n: u32) -> u32 { return select((1u << n) - 1u, 0xffffffffu, n >= 32u); }

// Which of the keys j0...j0 + 31 the entries from the given one on show to a row, whose bits are at bits_row of a block's.
fn shown_by(first: u32, end: u32, bits_row: u32, j0: u32) -> u32 {
  var word = 0u;
  for (var e = first; e < end; e += 2u) {
    let block = lists[e] * p.block_k;
    if (block >= j0 + BK) { break; }
    let first_key = max(block, j0);
    let to = min(block + p.block_k, j0 + BK);
    let own = lists[e + 1u];
    var seen = 0xffffffffu;
    if (own != 0xffffffffu) {
      seen = 0u;
      for (var i = (first_key - block) / 8u; i <= (to - 1u - block) / 8u; i++) {
        let v = bits[bits_row + own * p.bits_block + i] & 0xffu;
        let key0 = block + i * 8u;
        if (key0 >= j0) { seen |= v << (key0 - j0); } else { seen |= v >> (j0 - key0); }
      }
    }
    word |= seen & low(to - j0) & ~low(first_key - j0);
  }
  return word;
}

// First key of the tile in which the entries from the given one on, after those that end before key `least`, go on.
fn tile_of(entry: u32, end: u32, least: u32) -> u32 {
  if (entry >= end) { return NONE; }
  return max(lists[entry] * p.block_k, least) / BK * BK;
}
//#endif

//#if SHUFFLE
//| // Over the eight invocations of a row group, which lie in one subgroup.
//| fn max_of_eight(x: vec4<f32>) -> vec4<f32> {
  //| var y = max(x, subgroupShuffleXor(x, 1u));
  //| y = max(y, subgroupShuffleXor(y, 2u));
  //| return max(y, subgroupShuffleXor(y, 4u));
//| }
//| fn sum_of_eight(x: vec4<f32>) -> vec4<f32> {
  //| var y = x + subgroupShuffleXor(x, 1u);
  //| y += subgroupShuffleXor(y, 2u);
  //| return y + subgroupShuffleXor(y, 4u);
//| }
//#endif

fn pick(i: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
  return select(select(a, b, i == 1u), select(c, d, i == 3u), i >= 2u);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let ty = t / 8u;
  let tx = t % 8u;
  let b = wg.z;
  let head0 = wg.y * p.pack;
  let kv_head = head0 / p.groups;
  //#if SPLIT
  //| let split = wg.x % p.splits;
  //| let row0 = wg.x / p.splits * BQ;
  //#else
  let row0 = wg.x * BQ;
  //#endif
  let rows = p.q * p.pack;
  let k_base = p.k_offset + b * p.k_b + kv_head * p.k_h;
  let v_base = p.v_offset + b * p.v_b + kv_head * p.v_h;
  //#if SCALED
  //| key_scale = p.key_scales_offset + b * p.key_scales_b + kv_head * p.key_scales_h;
  //| value_scale = p.value_scales_offset + b * p.value_scales_b + kv_head * p.value_scales_h;
  //#endif

  // Keys that some row of this tile may see.
  var low = i32(row0);
  var high = i32(min(row0 + BQ, rows)) - 1;
  if (p.pack > 1u) {
    low = 0;
    high = i32(p.q) - 1;
  }
  var begin = 0;
  var end = i32(p.k);
  //#if CAUSAL
  end = min(end, high + p.query_offset + 1);
  //#endif
  //#if LEFT
  begin = max(0, low + p.query_offset - p.window_left) / i32(BK) * i32(BK);
  //#endif
  //#if RIGHT
  end = min(end, high + p.query_offset + p.window_right + 1);
  //#endif
  //#if SPLIT
  //| begin = max(begin, i32(split * p.split_keys));
  //| end = min(end, i32((split + 1u) * p.split_keys));
  //#endif

  // This invocation's rows, four to a vector.
  var row: array<vec4<u32>, RV>; //#scalars
  var place: array<vec4<u32>, RV>; //#scalars
  var position: array<vec4<i32>, RV>; //#scalars
  var alive: array<vec4<bool>, RV>; //#scalars
  //#if MASK != none
  var mask_row: array<vec4<u32>, RV>; //#scalars
  //#endif
  var m: array<vec4<f32>, RV>; //#scalars
  var l: array<vec4<f32>, RV>; //#scalars
  var o: array<vec4<f32>, R * NI>; //#scalars
  var s: array<f32, R * 4u>; //#scalars
  var qv: array<vec4<f32>, R>; //#scalars
  var kv: array<vec4<f32>, 4>; //#scalars
  var w: array<vec4<f32>, R>; //#scalars
  //#if SHUFFLE
  //| var reach: array<vec4<f32>, RV>; //#scalars
  //#endif
  //#if OVERLAP
  //| var next_keys: array<vec4<f32>, K_TURNS>; //#scalars
  //| var next_values: array<vec4<f32>, V_TURNS>; //#scalars
  //#endif
  //#unroll
  for (var v = 0u; v < RV; v++) {
    row[v] = row0 + ty * R + v * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    place[v] = row[v] % p.q;
    position[v] = vec4<i32>(place[v]) + p.query_offset;
    alive[v] = row[v] < vec4<u32>(rows);
    //#if ZERO_QUERIES
    //#unroll DEEP
    for (var r = 0u; r < rolled(4u); r++) {
      if (position[v][r] >= 0 && position[v][r] < i32(p.k)) {
        alive[v][r] = alive[v][r] && padding[p.padding_offset + b * p.padding_b + u32(position[v][r]) * p.padding_k] != 0u;
      }
    }
    //#endif
    //#if MASK != none
    mask_row[v] = p.mask_offset + b * p.mask_b + (head0 + row[v] / p.q) * p.mask_h + place[v] * p.mask_q;
    //#endif
    m[v] = vec4<f32>(LOWEST);
    l[v] = vec4<f32>(0.0); // of this invocation's own columns
  }

  //#if RESIDENT
  //| for (var i = t; i < BQ * Q_WIDTH; i += THREADS) {
    //| let d = i % Q_WIDTH;
    //| put_query(d / DC, i / Q_WIDTH, d % DC, query_of(b, head0, row0 + i / Q_WIDTH, d * 4u));
  //| }
  //#endif
  //#if OVERLAP
  //#unroll
  //| for (var u = 0u; u < K_TURNS; u++) {
    //| let i = t + u * THREADS;
    //| next_keys[u] = key_of(k_base, u32(begin) + i / DC, 0u, i % DC * 4u);
  //| }
  //#endif

  //#if BLOCKS
  // Invocation t walks the list of the tile's row t: its entries from `entry` on do not end before the next tile.
  var entry = 0u;
  var entries_end = 0u;
  var bits_row = 0u;
  if (t < BQ && row0 + t < rows) {
    let i = (row0 + t) % p.q;
    let list = p.lists_offset + b * p.list_b + (head0 + (row0 + t) / p.q) * p.list_h + i / p.block_q * p.list_q;
    entry = p.entries_offset + 2u * lists[list];
    entries_end = p.entries_offset + 2u * lists[list + 1u];
    bits_row = p.bits_offset + i % p.block_q * p.bits_q;
  }
  if (t == 0u) { atomicStore(&soonest, NONE); }
  workgroupBarrier();
  while (entry < entries_end && (lists[entry] + 1u) * p.block_k <= u32(begin)) { entry += 2u; }
  atomicMin(&soonest, tile_of(entry, entries_end, u32(begin)));
  workgroupBarrier();
  if (t == 0u) {
    next_tile = atomicLoad(&soonest);
    atomicStore(&soonest, NONE);
    atomicStore(&any_shown, 0u);
  }
  var k0 = i32(workgroupUniformLoad(&next_tile));
  while (k0 < end) {
    let j0 = u32(k0);
    if (t < BQ) {
      let word = shown_by(entry, entries_end, bits_row, j0);
      shown[t] = word;
      atomicOr(&any_shown, word);
      while (entry < entries_end && (lists[entry] + 1u) * p.block_k <= j0 + BK) { entry += 2u; }
      atomicMin(&soonest, tile_of(entry, entries_end, j0 + BK));
    }
  //#else
  //| for (var k0 = begin; k0 < end; k0 += i32(BK)) {
    //| let j0 = u32(k0);
  //#endif
    //#unroll
    for (var i = 0u; i < R * 4u; i++) {
      s[i] = 0.0;
    }
    for (var d0 = 0u; d0 < D4; d0 += DC) {
      workgroupBarrier();
      //#if !RESIDENT
      //#unroll DEEP
      for (var u = 0u; u < rolled(Q_TURNS); u++) {
        let i = t + u * THREADS;
        if (i < BQ * DC) { put_query(0u, i / DC, i % DC, query_of(b, head0, row0 + i / DC, (d0 + i % DC) * 4u)); }
      }
      //#endif
      //#if OVERLAP
      //#unroll
      //| for (var u = 0u; u < K_TURNS; u++) {
        //| let i = t + u * THREADS;
        //| if (i < BK * DC) { put_key(i / DC, i % DC, next_keys[u]); }
      //| }
      //#else
      //#unroll DEEP
      for (var u = 0u; u < rolled(K_TURNS); u++) {
        let i = t + u * THREADS;
        if (i < BK * DC) {
          put_key(i / DC, i % DC, key_of(k_base, j0 + i / DC, i / DC, (d0 + i % DC) * 4u));
        }
      }
      //#endif
      workgroupBarrier();
      //#if OVERLAP
      //| if (d0 + DC < D4) {
        //#unroll
        //| for (var u = 0u; u < K_TURNS; u++) {
          //| let i = t + u * THREADS;
          //| next_keys[u] = key_of(k_base, j0 + i / DC, 0u, (d0 + DC + i % DC) * 4u);
        //| }
      //| } else {
        //#unroll
        //| for (var u = 0u; u < V_TURNS; u++) {
          //| let i = t + u * THREADS;
          //| next_values[u] = value_of(v_base, j0 + i / DV4, 0u, i % DV4 * 4u);
        //| }
      //| }
      //#endif
      //#if RESIDENT
      //| let chunk = d0 / DC;
      //#else
      let chunk = 0u;
      //#endif
      //#unroll DEEP
      for (var d = 0u; d < rolled(DC); d++) {
        //#unroll
        for (var r = 0u; r < R; r++) {
          qv[r] = staged_query(chunk, ty * R + r, d);
        }
        //#unroll
        for (var c = 0u; c < 4u; c++) {
          kv[c] = staged_key(tx + c * 8u, d);
        }
        //#unroll
        for (var r = 0u; r < R; r++) {
          //#unroll
          for (var c = 0u; c < 4u; c++) {
            s[r * 4u + c] = fma(qv[r].x, kv[c].x, s[r * 4u + c]);
            s[r * 4u + c] = fma(qv[r].y, kv[c].y, s[r * 4u + c]);
            s[r * 4u + c] = fma(qv[r].z, kv[c].z, s[r * 4u + c]);
            s[r * 4u + c] = fma(qv[r].w, kv[c].w, s[r * 4u + c]);
          }
        }
      }
    }

    // Scores of key j0 + tx + 8 c; what a row may not see becomes LOWEST.
    //#unroll
    for (var v = 0u; v < RV; v++) {
      //#unroll
      for (var c = 0u; c < 4u; c++) {
        w[v * 4u + c] = vec4<f32>(s[v * 16u + c], s[v * 16u + 4u + c], s[v * 16u + 8u + c], s[v * 16u + 12u + c]) * p.scaling;
      }
      var top = vec4<f32>(LOWEST);
      //#unroll DEEP
      for (var c = 0u; c < rolled(4u); c++) {
        var x = pick(c, w[v * 4u], w[v * 4u + 1u], w[v * 4u + 2u], w[v * 4u + 3u]);
        let j = j0 + tx + c * 8u;
        var seen = alive[v] & vec4<bool>(j < p.k);
        //#if BLOCKS
        let first_row = ty * R + v * 4u;
        let words = vec4<u32>(shown[first_row], shown[first_row + 1u], shown[first_row + 2u], shown[first_row + 3u]);
        seen = seen & (((words >> vec4<u32>(tx + c * 8u)) & vec4<u32>(1u)) != vec4<u32>(0u));
        //#endif
        //#if SOFTCAP
        x = p.softcap * tanh_of(x / p.softcap);
        //#endif
        //#if CAUSAL
        seen = seen & (vec4<i32>(i32(j)) <= position[v]);
        //#endif
        //#if LEFT
        seen = seen & (vec4<i32>(i32(j)) >= position[v] - p.window_left);
        //#endif
        //#if RIGHT
        seen = seen & (vec4<i32>(i32(j)) <= position[v] + p.window_right);
        //#endif
        //#if PADDING
        seen = seen & vec4<bool>(padding[p.padding_offset + b * p.padding_b + j * p.padding_k] != 0u);
        //#endif
        //#if MASK != none
        let at = mask_row[v] + j * p.mask_k;
        let bias = vec4<u32>(mask[at.x], mask[at.y], mask[at.z], mask[at.w]);
        //#endif
        //#if MASK == bool
        //| seen = seen & (bias != vec4<u32>(0u));
        //#elif MASK == additive
        // As integers, negative floats grow downwards: everything from -1.7014117e38 (min / 2) to -inf is hidden.
        seen = seen & (bias < vec4<u32>(0xfeffffffu));
        x += bitcast<vec4<f32>>(select(vec4<u32>(0u), bias, seen));
        //#endif
        x = select(vec4<f32>(LOWEST), x, seen);
        top = max(top, x);
        //#unroll
        for (var i = 0u; i < 4u; i++) {
          w[v * 4u + i] = select(w[v * 4u + i], x, c == i);
        }
      }
      //#if SHUFFLE
      //| reach[v] = max_of_eight(top);
      //#else
      joint[t * RV + v] = top;
      //#endif
    }
    workgroupBarrier();
    //#unroll
    for (var v = 0u; v < RV; v++) {
      //#if SHUFFLE
      //| var top = max(m[v], reach[v]);
      //#else
      var top = m[v];
      //#unroll
      for (var i = 0u; i < 8u; i++) {
        top = max(top, joint[(ty * 8u + i) * RV + v]);
      }
      //#endif
      //#if LAZY
      //| let grown = top > m[v] + vec4<f32>(GROWTH);
      //| if (any(grown)) {
        //| top = select(m[v], top, grown);
        //| let shrink = select(vec4<f32>(1.0), exp(m[v] - top), grown);
      //#else
      {
        let shrink = exp(m[v] - top);
      //#endif
        m[v] = top;
        l[v] *= shrink;
        //#unroll
        for (var r = 0u; r < 4u; r++) {
          //#unroll
          for (var i = 0u; i < NI; i++) {
            o[(v * 4u + r) * NI + i] *= shrink[r];
          }
        }
      }
      //#unroll DEEP
      for (var c = 0u; c < rolled(4u); c++) {
        let x = pick(c, w[v * 4u], w[v * 4u + 1u], w[v * 4u + 2u], w[v * 4u + 3u]);
        //#if LAZY
        //| var e = vec4<f32>(0.0);
        //| if (c % 2u == 0u) { e = exp(x - m[v]); } else { e = exp_by_polynomial(x - m[v]); }
        //| e = select(e, vec4<f32>(0.0), x <= vec4<f32>(LOWEST));
        //#else
        let e = select(exp(x - m[v]), vec4<f32>(0.0), x <= vec4<f32>(LOWEST));
        //#endif
        l[v] += e;
        put_weight(tx + c * 8u, ty * RV + v, e);
      }
    }

    for (var v0 = 0u; v0 < BK; v0 += VC) {
      if (v0 > 0u) { workgroupBarrier(); }
      //#if OVERLAP
      //#unroll
      //| for (var u = 0u; u < V_TURNS; u++) {
        //| let i = t + u * THREADS;
        //| if (i < VC * DV4) { put_value(i / DV4, i % DV4, next_values[u]); }
      //| }
      //#else
      //#unroll DEEP
      for (var u = 0u; u < rolled(V_TURNS); u++) {
        let i = t + u * THREADS;
        if (i < VC * DV4) {
          put_value(i / DV4, i % DV4, value_of(v_base, j0 + v0 + i / DV4, v0 + i / DV4, i % DV4 * 4u));
        }
      }
      //#endif
      workgroupBarrier();
      //#if OVERLAP
      //| if (v0 + VC < BK) {
        //#unroll
        //| for (var u = 0u; u < V_TURNS; u++) {
          //| let i = t + u * THREADS;
          //| next_values[u] = value_of(v_base, j0 + v0 + VC + i / DV4, 0u, i % DV4 * 4u);
        //| }
      //| } else if (k0 + i32(BK) < end) {
        //#unroll
        //| for (var u = 0u; u < K_TURNS; u++) {
          //| let i = t + u * THREADS;
          //| next_keys[u] = key_of(k_base, j0 + BK + i / DC, 0u, i % DC * 4u);
        //| }
      //| }
      //#endif
      //#unroll DEEP
      for (var j = 0u; j < rolled(VC); j++) {
        //#unroll
        for (var v = 0u; v < RV; v++) {
          qv[v] = staged_weight(v0 + j, ty * RV + v);
        }
        //#unroll
        for (var i = 0u; i < NI; i++) {
          let x = staged_value(j, tx, i);
          //#unroll
          for (var v = 0u; v < RV; v++) {
            //#unroll
            for (var r = 0u; r < 4u; r++) {
              o[(v * 4u + r) * NI + i] = fma(vec4<f32>(qv[v][r]), x, o[(v * 4u + r) * NI + i]);
            }
          }
        }
      }
    }
    //#if BLOCKS
    if (t == 0u) {
      next_tile = atomicLoad(&soonest);
      atomicStore(&soonest, NONE);
      atomicStore(&any_shown, 0u);
    }
    k0 = i32(workgroupUniformLoad(&next_tile));
    //#endif
  }

  workgroupBarrier();
  //#if !SHUFFLE
  //#unroll
  for (var v = 0u; v < RV; v++) {
    joint[t * RV + v] = l[v];
  }
  workgroupBarrier();
  //#endif
  //#unroll
  for (var v = 0u; v < RV; v++) {
    //#if SHUFFLE
    //| l[v] = sum_of_eight(l[v]);
    //#else
    l[v] = vec4<f32>(0.0);
    //#unroll
    for (var i = 0u; i < 8u; i++) {
      l[v] += joint[(ty * 8u + i) * RV + v];
    }
    //#endif
    //#if SPLIT
    //| let scale = vec4<f32>(1.0);
    //#else
    var shrink = vec4<f32>(1.0);
    //#if SINKS
    let head = min(head0 + row[v] / p.q, vec4<u32>(p.heads - 1u)) * p.sinks_stride + p.sinks_offset;
    let sink = vec4<f32>(sinks[head.x], sinks[head.y], sinks[head.z], sinks[head.w]);
    let top = max(m[v], sink);
    shrink = exp(m[v] - top);
    l[v] = l[v] * shrink + exp(sink - top);
    m[v] = top;
    //#endif
    let some = l[v] > vec4<f32>(0.0);
    let scale = select(vec4<f32>(0.0), shrink / max(l[v], vec4<f32>(1.0e-30)), some);
    //#if LSE
    let sums = select(vec4<u32>(0xff800000u), bitcast<vec4<u32>>(m[v] + log(max(l[v], vec4<f32>(1.0e-30)))), some);
    //#endif
    //#endif
    //#unroll DEEP
    for (var r = 0u; r < rolled(4u); r++) {
      if (row[v][r] < rows) {
        let h = head0 + row[v][r] / p.q;
        //#if SPLIT
        //| let at = (((b * p.heads + h) * p.q + place[v][r]) * p.splits + split) * (DV4 + 1u);
        //| if (tx == 0u) { parts[at] = vec4<f32>(m[v][r], l[v][r], 0.0, 0.0); }
        //#else
        let at = p.out_offset + ((b * p.q + place[v][r]) * p.heads + h) * DV;
        //#endif
        //#unroll
        for (var c = 0u; c < NI; c++) {
          let d = (tx + c * 8u) * 4u;
          let x = pick(r, o[v * 4u * NI + c], o[(v * 4u + 1u) * NI + c], o[(v * 4u + 2u) * NI + c], o[(v * 4u + 3u) * NI + c]) * scale[r];
          //#if SPLIT
          //| if (d < DV) { parts[at + 1u + d / 4u] = x; }
          //#elif OUT4
          //| if (d < DV) { out[(at + d) / 4u] = x; }
          //#else
          if (d < DV) { out[at + d] = x.x; }
          if (d + 1u < DV) { out[at + d + 1u] = x.y; }
          if (d + 2u < DV) { out[at + d + 2u] = x.z; }
          if (d + 3u < DV) { out[at + d + 3u] = x.w; }
          //#endif
        }
        //#if LSE
        if (tx == 0u) { lse[p.lse_offset + (b * p.heads + h) * p.q + place[v][r]] = sums[r]; }
        //#endif
      }
    }
  }
}
