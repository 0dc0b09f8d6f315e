//! Flash attention for blocks of query rows (prefill).
//!
//! Over the naive version: tiles of keys with an online softmax (FlashAttention-2, Dao 2023: unnormalised output,
//! one division at the end), so memory does not grow with K; base-2 exponentials with the scale folded into the
//! queries; tiles outside causality and window are never touched, inside them masks are not evaluated. Scores are
//! kept transposed, lanes are queries: keys and values are read as stored, maxima and sums are vertical, and the
//! weights come out in the layout the second product reads. Eight queries make a group, the unit of masking.
//! Measured in Deno 2.9 on a Xeon: 77 % of the core's multiply-add peak at D = 64 and 80 % at D = 128; holding the
//! constants of the exponential in registers gave 3 % of that, maxima taken in the product's epilogue 3 %.
use crate::attention::Attention;
use crate::blocks::{low, Walk};
use crate::mask::Range;
use crate::math::{log, Exp2Neg, LN_2, LOG2_E};
use crate::outer::{column_maxima, nn8, tn};
use crate::simd::*;
use crate::softmax::scale;
use crate::tile::{up4, TILE};

/// Queries of a group: two vectors.
const LANES: usize = 8;

/// Most groups of one part.
const GROUPS: usize = 8;

/// What is kept for a group of queries between tiles.
#[derive(Clone, Copy)]
struct Group {
    /// First query row, and how many are real.
    i: usize,
    rows: usize,
    /// Visible keys per lane, and their common bounds: any lane sees `any`, all lanes see `all`.
    lo: [V; 2],
    hi: [V; 2],
    any: Range,
    all: Range,
    /// Running maximum (base 2) and sum per lane.
    m: [V; 2],
    l: [V; 2],
    /// Scaled queries (D, 8) and output (Dv, 8), transposed.
    q: *mut f32,
    o: *mut f32,
}

/// Parts: (B, H, blocks of `q_block` rows).
#[no_mangle]
pub unsafe extern "C" fn attention_flash(params: *const Attention, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let blocks = p.q_len.div_ceil(p.q_block);
    for part in begin..end {
        let i0 = (part % blocks * p.q_block) as usize;
        let bh = part / blocks;
        let rows = (p.q_len as usize - i0).min(p.q_block as usize);
        block(
            p,
            scratch as *mut f32,
            (bh / p.h) as usize,
            (bh % p.h) as usize,
            i0,
            rows,
        );
    }
}

unsafe fn block(p: &Attention, scratch: *mut f32, b: usize, h: usize, i0: usize, rows: usize) {
    let (wide, wide_v) = (up4(p.d as usize), up4(p.dv as usize));
    let count = rows.div_ceil(LANES);
    let scores = scratch;
    let room_k = scores.add(2 * TILE * LANES);
    let room_v = room_k.add(TILE * wide);
    let mut next = room_v.add(TILE * wide_v);
    let mut state = core::mem::MaybeUninit::<[Group; GROUPS]>::uninit();
    let groups = state.as_mut_ptr() as *mut Group;
    let (mut lo, mut hi) = (p.k_len as i32, 0);
    for g in 0..count {
        let i = i0 + g * LANES;
        let group = Group::new(p, b, h, i, (rows - g * LANES).min(LANES), next);
        next = group.o.add(wide_v * LANES);
        if group.any.lo < group.any.hi {
            lo = lo.min(group.any.lo);
            hi = hi.max(group.any.hi);
        }
        *groups.add(g) = group;
    }
    let mut walk = Walk::new(p);
    for i in i0..i0 + rows {
        walk.add(b, h, i);
    }
    let kv = h / (p.h / p.hkv) as usize;
    let (keys, values) = (p.keys(b, kv), p.values(b, kv));
    while walk.next() {
        let mut k0 = walk.from(lo as usize);
        while k0 < walk.end.min(hi as usize) {
            let n = walk.piece(k0);
            let mut seen = [[0; LANES]; GROUPS];
            let mut any = 0;
            for (g, words) in seen.iter_mut().enumerate().take(count) {
                *words = walk.seen8(g * LANES, (*groups.add(g)).rows, k0, n);
                any |= words.iter().fold(0, |a, w| a | w);
            }
            if any != 0 {
                let k = keys.tile(k0, n, false, room_k);
                let v = values.tile(k0, n, true, room_v);
                for (g, words) in seen.iter().enumerate().take(count) {
                    (*groups.add(g)).step(p, b, h, k0, n, words, k, v, scores);
                }
            }
            k0 += n;
        }
    }
    for g in 0..count {
        (*groups.add(g)).finish(p, b, h);
    }
}

impl Group {
    unsafe fn new(p: &Attention, b: usize, h: usize, i: usize, rows: usize, room: *mut f32) -> Self {
        let (d, wide, wide_v) = (p.d as usize, up4(p.d as usize), up4(p.dv as usize));
        let unit = if p.natural() {
            p.scaling
        } else {
            p.scaling * LOG2_E
        };
        let (q, o) = (room, room.add(wide * LANES));
        crate::attention::fill(o, wide_v * LANES, 0.0);
        let (mut lo, mut hi) = ([0; LANES], [0; LANES]);
        let (mut any, mut all) = (Range { lo: i32::MAX, hi: 0 }, Range { lo: 0, hi: i32::MAX });
        for lane in 0..LANES {
            // Lanes without a query repeat the last one's range, so that they need no mask of their own.
            let range = p.range(b, i + lane.min(rows - 1));
            (lo[lane], hi[lane]) = (range.lo, range.hi);
            all = Range {
                lo: all.lo.max(range.lo),
                hi: all.hi.min(range.hi),
            };
            if range.lo < range.hi {
                any = Range {
                    lo: any.lo.min(range.lo),
                    hi: any.hi.max(range.hi),
                };
            }
        }
        let mut queries = [core::ptr::null(); LANES];
        for (lane, from) in queries.iter_mut().enumerate() {
            *from = p.query(b, h, i + lane.min(rows - 1));
        }
        for half in 0..2 {
            for c in (0..d).step_by(4) {
                let row = |r: usize| mul(load_up_to_4(queries[4 * half + r].add(c), d - c), splat(unit));
                for (r, v) in transpose4([row(0), row(1), row(2), row(3)])
                    .into_iter()
                    .enumerate()
                {
                    store(q.add((c + r) * LANES + 4 * half), v);
                }
            }
        }
        let pair = |x: &[i32; LANES]| [vec4i([x[0], x[1], x[2], x[3]]), vec4i([x[4], x[5], x[6], x[7]])];
        let sink = p.sink(h);
        Group {
            i,
            rows,
            lo: pair(&lo),
            hi: pair(&hi),
            any,
            all,
            m: [splat(sink * LOG2_E); 2],
            l: [splat((sink > f32::NEG_INFINITY) as u32 as f32); 2],
            q,
            o,
        }
    }

    /// Takes in the keys `k0..k0+n`, of which `k` and `v` are the (padded) rows, as far as the blocks show them: `seen`
    /// has a word for each lane and a bit for each key.
    unsafe fn step(
        &mut self,
        p: &Attention,
        b: usize,
        h: usize,
        k0: usize,
        n: usize,
        seen: &[u64; LANES],
        k: (*const f32, usize),
        v: (*const f32, usize),
        scores: *mut f32,
    ) {
        // Keys nobody here sees are left out, in steps of four.
        let any = seen.iter().fold(0, |a, w| a | w);
        let lo = (self.any.lo.max(k0 as i32) as usize - k0).max(any.trailing_zeros() as usize);
        let hi = (self.any.hi.min((k0 + n) as i32) - k0 as i32).min(64 - any.leading_zeros() as i32);
        let (from, to) = (lo / 4 * 4, hi);
        if to <= from as i32 {
            return;
        }
        let to = to as usize;
        let len = up4(to - from);
        let (k, ldk) = (at_row(k, from), k.1);
        let wide = up4(p.d as usize);
        let mut m = nn8(k, ldk, len, self.q, wide, scores, self.m);
        let first = k0 + from;
        if p.hook != 0 {
            let turned = scores.add(TILE * LANES);
            p.call_hook_transposed(scores, turned, TILE, [b, h, self.i, first], self.rows, to - from);
        }
        let shown = seen.map(|w| w >> from);
        let whole = self.all.lo as usize <= first
            && self.all.hi as usize >= first + len
            && !shown.iter().fold(!0, |a, w| a & w) & low(len) == 0;
        if !whole || p.has_mask() {
            p.mask_tile(
                [self.lo, self.hi],
                &shown,
                b,
                h,
                self.i,
                self.rows,
                first,
                to - from,
                len,
                scores,
            );
        }
        if p.natural() {
            scale(scores, len * LANES, LOG2_E);
        }
        if !whole || p.has_mask() || p.natural() {
            m = column_maxima(scores, len, self.m);
        }
        self.weigh(scores, len, m, p.dv as usize);
        tn(at_row(v, from), v.1, up4(p.dv as usize), scores, len, self.o);
    }

    /// Turns scores into weights `2^(s−m)`, m being the new maxima, updates l, and scales earlier output where a maximum grew.
    #[inline(never)]
    unsafe fn weigh(&mut self, scores: *mut f32, len: usize, m: [V; 2], dv: usize) {
        let none = splat(f32::NEG_INFINITY);
        // With m = −∞ every difference would be NaN.
        let base = m.map(|m| select(eq(m, none), splat(0.0), m));
        let exp2 = Exp2Neg::new();
        let mut total = [splat(0.0); 2];
        let mut s = scores;
        for _ in 0..len {
            let e = [
                exp2.of(sub(load(s), base[0])),
                exp2.of(sub(load(s.add(4)), base[1])),
            ];
            store(s, e[0]);
            store(s.add(4), e[1]);
            total = [add(total[0], e[0]), add(total[1], e[1])];
            s = s.add(8);
        }
        if any(or(gt(m[0], self.m[0]), gt(m[1], self.m[1]))) {
            let alpha = [exp2.of(sub(self.m[0], base[0])), exp2.of(sub(self.m[1], base[1]))];
            self.l = [mul(self.l[0], alpha[0]), mul(self.l[1], alpha[1])];
            let mut o = self.o;
            for _ in 0..up4(dv) {
                store(o, mul(load(o), alpha[0]));
                store(o.add(4), mul(load(o.add(4)), alpha[1]));
                o = o.add(8);
            }
            self.m = m;
        }
        self.l = [add(self.l[0], total[0]), add(self.l[1], total[1])];
    }

    unsafe fn finish(&self, p: &Attention, b: usize, h: usize) {
        let mut lse = [0.0; LANES];
        let dv = p.dv as usize;
        for half in 0..2 {
            let (m, l) = (self.m[half], self.l[half]);
            let empty = eq(l, splat(0.0));
            let inverse = andnot(div(splat(1.0), l), empty);
            let sum = add(mul(m, splat(LN_2)), log(l));
            store(
                lse.as_mut_ptr().add(4 * half),
                select(empty, splat(f32::NEG_INFINITY), sum),
            );
            for c in (0..dv).step_by(4) {
                let column = |x: usize| mul(load(self.o.add((c + x) * LANES + 4 * half)), inverse);
                let turned = transpose4([column(0), column(1), column(2), column(3)]);
                for (lane, v) in turned
                    .into_iter()
                    .enumerate()
                    .take(self.rows.saturating_sub(4 * half))
                {
                    store_up_to_4(p.out_row(b, h, self.i + 4 * half + lane).add(c), v, dv - c);
                }
            }
        }
        if !p.lse.is_null() {
            core::ptr::copy_nonoverlapping(lse.as_ptr(), p.lse.add(p.row(b, h, self.i)), self.rows);
        }
    }
}

fn at_row(t: (*const f32, usize), row: usize) -> *const f32 {
    crate::dtype::at(t.0, row.wrapping_mul(t.1), 4)
}
