// Attention of few queries over many keys, as in decoding: keys and values are read once, which is all the time this
// takes. What counts is how many bytes are on their way, so nothing waits for a tile: LANES invocations have a key and its
// value, read straight into registers, a few keys at a time; each such group has an online softmax of its own. The groups
// of a workgroup are joined at its end, the workgroups by flash_merge.wgsl (Flash-Decoding, Dao et al. 2023).
//
// The only thing invocations of a group tell each other is a score, by shuffling where one subgroup has them all, else
// through workgroup memory. Rows are the queries of the heads that share a key/value head. Which keys a group has depends
// on the sequence alone: a row's result depends neither on other rows nor on the batch.
//
// Masks by blocks and many rows are flash.wgsl's, which has the same parameters.
//
// Length: one kernel with all its mask forms, read from top to bottom.

//#flags SCALED=false SOFTCAP=true CAUSAL=true LEFT=true RIGHT=true PADDING=true ZERO_QUERIES=true MASK=additive SHUFFLE=false SHUFFLE16=false
const D: u32 = 64u; //#constant
const DV: u32 = 64u; //#constant
const LANES: u32 = 8u; //#constant
const ROWS: u32 = 4u; //#constant
const KEYS: u32 = 4u; //#constant
// Derived. KEYS are those of a group at a time.
const THREADS: u32 = 128u;
const GROUPS: u32 = THREADS / LANES;
const STEP: u32 = GROUPS * KEYS;
const D4: u32 = (D + 3u) / 4u;
const DV4: u32 = (DV + 3u) / 4u;
const NK: u32 = (D4 + LANES - 1u) / LANES; // vectors of an invocation: of a key, of a value
const NV: u32 = (DV4 + LANES - 1u) / LANES;
const RV: u32 = (ROWS + 3u) / 4u;
const R4: u32 = RV * 4u;
const LOWEST: f32 = -3.4028234e38;

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
  split_keys: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> query: array<f32>; //#storage QUERY
@group(0) @binding(2) var<storage, read> key: array<f32>; //#storage KEY
@group(0) @binding(3) var<storage, read> value: array<f32>; //#storage VALUE
@group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>; // (B, H, Q, splits, 1 + DV4): (m, l, 0, 0), then the sum
//#if PADDING
@group(0) @binding(6) var<storage, read> padding: array<u32>; // (B, K), 1 = real key
//#endif
//#if MASK != none
@group(0) @binding(7) var<storage, read> mask: array<u32>; // (B, H, Q, K) by strides: 1 = visible, or bits of an f32 bias
//#endif
//#if SCALED
//| @group(0) @binding(11) var<storage, read> key_scales: array<f32>; // (B, Hkv, K) by strides, as the next
//| @group(0) @binding(12) var<storage, read> value_scales: array<f32>;
//#endif
var<workgroup> joint: array<vec4<f32>, THREADS * RV>;
var<workgroup> tops: array<vec4<f32>, GROUPS * RV>;
var<workgroup> sums: array<vec4<f32>, GROUPS * RV>;

fn query4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(query[i], select(0.0, query[i + 1u], n > 1u), select(0.0, query[i + 2u], n > 2u), select(0.0, query[i + 3u], n > 3u)); } //#load4 query QUERY
fn key4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(key[i], select(0.0, key[i + 1u], n > 1u), select(0.0, key[i + 2u], n > 2u), select(0.0, key[i + 3u], n > 3u)); } //#load4 key KEY
fn value4(i: u32, n: u32) -> vec4<f32> { return vec4<f32>(value[i], select(0.0, value[i + 1u], n > 1u), select(0.0, value[i + 2u], n > 2u), select(0.0, value[i + 3u], n > 3u)); } //#load4 value VALUE

// Elements d...d + 3 of key or value j, zeros from key `end` on.
fn key_of(base: u32, j: u32, end: u32, d: u32) -> vec4<f32> {
  if (d >= D || j >= end) { return vec4<f32>(0.0); }
  return key4(base + j * p.k_n + d, D - d);
}
fn value_of(base: u32, j: u32, end: u32, d: u32) -> vec4<f32> {
  if (d >= DV || j >= end) { return vec4<f32>(0.0); }
  return value4(base + j * p.v_n + d, DV - d);
}
fn query_of(b: u32, head0: u32, line: u32, d: u32) -> vec4<f32> {
  if (d >= D || line >= p.q * p.pack) { return vec4<f32>(0.0); }
  return query4(p.q_offset + b * p.q_b + (head0 + line / p.q) * p.q_h + line % p.q * p.q_n + d, D - d);
}

//#if SCALED
//| fn scale_of(first: u32, step: u32, j: u32, end: u32, of_key: bool) -> f32 {
  //| if (j >= end) { return 0.0; }
  //| if (of_key) { return key_scales[first + j * step]; }
  //| return value_scales[first + j * step];
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

//#if SHUFFLE && LANES == 8 || SHUFFLE16
//| fn sum_of_group(x: vec4<f32>) -> vec4<f32> {
  //| var y = x + subgroupShuffleXor(x, 1u);
  //| y += subgroupShuffleXor(y, 2u);
  //| y += subgroupShuffleXor(y, 4u);
  //#if LANES == 16
  //| y += subgroupShuffleXor(y, 8u);
  //#endif
  //| return y;
//| }
//#endif

// n, but not to the compiler: software drivers unroll loops of constant length, and then compile for seconds.
fn rolled(n: u32) -> u32 { return min(n, n * p.heads); }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let group = t / LANES;
  let lane = t % LANES;
  let b = wg.z;
  let head0 = wg.y * p.pack;
  let kv_head = head0 / p.groups;
  let split = wg.x % p.splits;
  let row0 = wg.x / p.splits * ROWS;
  let rows = p.q * p.pack;
  let k_base = p.k_offset + b * p.k_b + kv_head * p.k_h;
  let v_base = p.v_offset + b * p.v_b + kv_head * p.v_h;

  //#if SCALED
  //| let key_scale = p.key_scales_offset + b * p.key_scales_b + kv_head * p.key_scales_h;
  //| let value_scale = p.value_scales_offset + b * p.value_scales_b + kv_head * p.value_scales_h;
  //#endif

  // Keys of this part that some row of these may see.
  var low = i32(row0);
  var high = i32(min(row0 + ROWS, rows)) - 1;
  if (p.pack > 1u) {
    low = 0;
    high = i32(p.q) - 1;
  }
  var begin = i32(split * p.split_keys);
  var end = min(i32(p.k), i32((split + 1u) * p.split_keys));
  //#if CAUSAL
  end = min(end, high + p.query_offset + 1);
  //#endif
  //#if LEFT
  begin = max(begin, low + p.query_offset - p.window_left);
  //#endif
  //#if RIGHT
  end = min(end, high + p.query_offset + p.window_right + 1);
  //#endif

  var row: array<vec4<u32>, RV>; //#scalars DEEP
  var position: array<vec4<i32>, RV>; //#scalars DEEP
  var alive: array<vec4<bool>, RV>; //#scalars DEEP
  //#if MASK != none
  var mask_row: array<vec4<u32>, RV>; //#scalars DEEP
  //#endif
  var m: array<vec4<f32>, RV>; //#scalars DEEP
  var l: array<vec4<f32>, RV>; //#scalars DEEP
  var share: array<vec4<f32>, RV>; //#scalars DEEP
  var o: array<vec4<f32>, R4 * NV>; //#scalars DEEP
  var qv: array<vec4<f32>, ROWS * NK>; //#scalars DEEP
  var kv: array<vec4<f32>, KEYS * NK>; //#scalars DEEP
  var vv: array<vec4<f32>, KEYS * NV>; //#scalars DEEP
  var w: array<vec4<f32>, KEYS * RV>; //#scalars DEEP
  //#unroll DEEP
  for (var v = 0u; v < rolled(RV); v++) {
    row[v] = row0 + v * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    position[v] = vec4<i32>(row[v] % p.q) + p.query_offset;
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
    mask_row[v] = p.mask_offset + b * p.mask_b + (head0 + row[v] / p.q) * p.mask_h + row[v] % p.q * p.mask_q;
    //#endif
    m[v] = vec4<f32>(LOWEST);
  }
  //#unroll DEEP
  for (var r = 0u; r < rolled(ROWS); r++) {
    //#unroll DEEP
    for (var i = 0u; i < rolled(NK); i++) {
      qv[r * NK + i] = query_of(b, head0, row0 + r, (lane + i * LANES) * 4u);
    }
  }

  for (var k0 = begin; k0 < end; k0 += i32(STEP)) {
    let j0 = u32(k0) + group;
    //#unroll DEEP
    for (var u = 0u; u < rolled(KEYS); u++) {
      //#unroll DEEP
      for (var i = 0u; i < rolled(NK); i++) {
        kv[u * NK + i] = key_of(k_base, j0 + u * GROUPS, u32(end), (lane + i * LANES) * 4u);
      }
    }
    // Before the scores are known: they are on their way meanwhile.
    //#unroll DEEP
    for (var u = 0u; u < rolled(KEYS); u++) {
      //#unroll DEEP
      for (var i = 0u; i < rolled(NV); i++) {
        vv[u * NV + i] = value_of(v_base, j0 + u * GROUPS, u32(end), (lane + i * LANES) * 4u);
      }
    }
    //#unroll DEEP
    for (var u = 0u; u < rolled(KEYS); u++) {
      //#unroll DEEP
      for (var v = 0u; v < rolled(RV); v++) {
        w[u * RV + v] = vec4<f32>(0.0);
      }
      //#unroll DEEP
      for (var r = 0u; r < rolled(ROWS); r++) {
        //#unroll DEEP
        for (var i = 0u; i < rolled(NK); i++) {
          w[u * RV + r / 4u][r % 4u] += dot(qv[r * NK + i], kv[u * NK + i]);
        }
      }
      //#if SHUFFLE && LANES == 8 || SHUFFLE16
      //#unroll DEEP
      //| for (var v = 0u; v < rolled(RV); v++) {
        //| w[u * RV + v] = sum_of_group(w[u * RV + v]);
      //| }
      //#else
      workgroupBarrier();
      //#unroll DEEP
      for (var v = 0u; v < rolled(RV); v++) {
        joint[t * RV + v] = w[u * RV + v];
      }
      workgroupBarrier();
      //#unroll DEEP
      for (var v = 0u; v < rolled(RV); v++) {
        w[u * RV + v] = vec4<f32>(0.0);
        for (var i = 0u; i < LANES; i++) {
          w[u * RV + v] += joint[(group * LANES + i) * RV + v];
        }
      }
      //#endif
    }
    //#unroll DEEP
    for (var v = 0u; v < rolled(RV); v++) {
      var top = m[v];
      //#unroll DEEP
      for (var u = 0u; u < rolled(KEYS); u++) {
        let j = j0 + u * GROUPS;
        //#if SCALED
        //| var x = w[u * RV + v] * (p.scaling * scale_of(key_scale, p.key_scales_n, j, u32(end), true));
        //#else
        var x = w[u * RV + v] * p.scaling;
        //#endif
        var seen = alive[v] & vec4<bool>(j < u32(end));
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
        w[u * RV + v] = x;
      }
      let shrink = exp(m[v] - top);
      m[v] = top;
      l[v] *= shrink;
      //#unroll DEEP
      for (var c = 0u; c < rolled(4u); c++) {
        //#unroll DEEP
        for (var i = 0u; i < rolled(NV); i++) {
          o[(v * 4u + c) * NV + i] *= shrink[c];
        }
      }
      //#unroll DEEP
      for (var u = 0u; u < rolled(KEYS); u++) {
        w[u * RV + v] = select(exp(w[u * RV + v] - top), vec4<f32>(0.0), w[u * RV + v] <= vec4<f32>(LOWEST));
        l[v] += w[u * RV + v];
        //#if SCALED
        //| w[u * RV + v] *= scale_of(value_scale, p.value_scales_n, j0 + u * GROUPS, u32(end), false);
        //#endif
      }
    }
    //#unroll DEEP
    for (var r = 0u; r < rolled(ROWS); r++) {
      //#unroll DEEP
      for (var u = 0u; u < rolled(KEYS); u++) {
        //#unroll DEEP
        for (var i = 0u; i < rolled(NV); i++) {
          o[r * NV + i] = fma(vec4<f32>(w[u * RV + r / 4u][r % 4u]), vv[u * NV + i], o[r * NV + i]);
        }
      }
    }
  }

  // The groups, in order.
  if (lane == 0u) {
    //#unroll DEEP
    for (var v = 0u; v < rolled(RV); v++) {
      tops[group * RV + v] = m[v];
      sums[group * RV + v] = l[v];
    }
  }
  workgroupBarrier();
  //#unroll DEEP
  for (var v = 0u; v < rolled(RV); v++) {
    var top = vec4<f32>(LOWEST);
    for (var g = 0u; g < GROUPS; g++) { top = max(top, tops[g * RV + v]); }
    l[v] = vec4<f32>(0.0);
    for (var g = 0u; g < GROUPS; g++) { l[v] = fma(sums[g * RV + v], exp(tops[g * RV + v] - top), l[v]); }
    share[v] = exp(m[v] - top);
    m[v] = top;
  }
  //#unroll DEEP
  for (var r = 0u; r < rolled(ROWS); r++) {
    let line = row0 + r;
    let at = (((b * p.heads + head0 + line / p.q) * p.q + line % p.q) * p.splits + split) * (DV4 + 1u);
    if (t == 0u && line < rows) { parts[at] = vec4<f32>(m[r / 4u][r % 4u], l[r / 4u][r % 4u], 0.0, 0.0); }
    //#unroll DEEP
    for (var i = 0u; i < rolled(NV); i++) {
      workgroupBarrier();
      joint[t] = o[r * NV + i] * share[r / 4u][r % 4u];
      workgroupBarrier();
      if (t < LANES && t + i * LANES < DV4 && line < rows) {
        var x = vec4<f32>(0.0);
        for (var g = 0u; g < GROUPS; g++) { x += joint[g * LANES + t]; }
        parts[at + 1u + t + i * LANES] = x;
      }
    }
  }
}
