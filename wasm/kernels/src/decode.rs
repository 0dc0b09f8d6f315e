//! Flash attention for few query rows (decoding): one pass over keys and values for all heads of a group.
//!
//! Over the naive version: scores never leave the cache (online softmax, Milakov & Gimelshein 2018, as in
//! FlashAttention-2: unnormalised output, one division at the end), and the query heads that share a key/value head
//! are the rows of one tile product (narrow.rs), so memory is read once for all of them.
use crate::attention::{copy_scaled, fill, Attention};
use crate::blocks::{hide, Walk, ROWS};
use crate::math::{exp2_neg1, log1, Exp2Neg, LN_2, LOG2_E};
use crate::simd::*;
use crate::softmax::scale;
use crate::tile::{up4, TILE};

/// Keys whose values are summed by themselves. In one sum every product would be rounded at the size of all that came
/// before: over 2048 keys the error was 3 times as large. Spans begin at fixed keys, so that a row's sum ignores others.
const SPAN: usize = 4 * TILE;

/// A query row: its head, position, running maximum (base 2) and sum, and what output before this span is scaled by.
#[derive(Clone, Copy)]
struct Row {
    h: usize,
    i: usize,
    m: f32,
    l: f32,
    alpha: f32,
}

/// Parts: (B, Hkv, blocks of `q_block` of the H/Hkv · Q rows).
#[no_mangle]
pub unsafe extern "C" fn attention_decode(params: *const Attention, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let rows = p.h / p.hkv * p.q_len;
    let blocks = rows.div_ceil(p.q_block);
    for part in begin..end {
        let first = part % blocks * p.q_block;
        let bh = part / blocks;
        let count = (rows - first).min(p.q_block);
        block(
            p,
            scratch as *mut f32,
            (bh / p.hkv) as usize,
            (bh % p.hkv) as usize,
            first as usize,
            count as usize,
        );
    }
}

unsafe fn block(p: &Attention, scratch: *mut f32, b: usize, kv: usize, first: usize, count: usize) {
    let (d, dv, q_len) = (p.d as usize, p.dv as usize, p.q_len as usize);
    let (wide, wide_v) = (up4(d), up4(dv));
    let q = scratch;
    let o = q.add(count * wide);
    let of_span = o.add(count * wide_v);
    let scores = of_span.add(count * wide_v);
    let natural = p.natural();
    let unit = if natural { p.scaling } else { p.scaling * LOG2_E };
    let mut state = [Row {
        h: 0,
        i: 0,
        m: 0.0,
        l: 0.0,
        alpha: 1.0,
    }; ROWS];
    let rows = state.as_mut_ptr();
    let (mut lo, mut hi) = (p.k_len as usize, 0);
    let mut walk = Walk::new(p);
    for r in 0..count {
        let (h, i) = (
            kv * (p.h / p.hkv) as usize + (first + r) / q_len,
            (first + r) % q_len,
        );
        let sink = p.sink(h);
        *rows.add(r) = Row {
            h,
            i,
            m: sink * LOG2_E,
            l: (sink > f32::NEG_INFINITY) as u32 as f32,
            alpha: 1.0,
        };
        copy_scaled(p.query(b, h, i), d, unit, q.add(r * wide));
        walk.add(b, h, i);
        let range = p.range(b, i);
        if range.lo < range.hi {
            lo = lo.min(range.lo as usize);
            hi = hi.max(range.hi as usize);
        }
    }
    fill(o, 2 * count * wide_v, 0.0);
    let mut span = 0;
    let (keys, values) = (p.keys(b, kv), p.values(b, kv));
    // Pieces are the same for any rows, so that a row's order of summation ignores the others.
    while walk.next() {
        let mut k0 = walk.from(lo);
        while k0 < walk.end.min(hi) {
            let n = walk.piece(k0);
            let mut seen = [0; ROWS];
            let mut any = 0;
            for r in 0..count {
                *seen.as_mut_ptr().add(r) = walk.seen(r, k0, n);
                any |= *seen.as_ptr().add(r);
            }
            if any != 0 {
                if k0 / SPAN != span {
                    span = k0 / SPAN;
                    for r in 0..count {
                        take(
                            &mut *rows.add(r),
                            o.add(r * wide_v),
                            of_span.add(r * wide_v),
                            wide_v,
                        );
                    }
                }
                keys.narrow_scores(q, wide, count, k0, n, scores, TILE);
                for r in 0..count {
                    let row = &mut *rows.add(r);
                    let s = scores.add(r * TILE);
                    p.call_hook(s, TILE, [b, row.h, row.i, k0], 1, n);
                    p.mask_scores(p.range(b, row.i), b, row.h, row.i, k0, n, s);
                    hide(*seen.as_ptr().add(r), n, s);
                    if natural {
                        scale(s, n, LOG2_E);
                    }
                    let alpha = weigh(s, n, row);
                    if alpha != 1.0 {
                        row.alpha *= alpha;
                        scale(of_span.add(r * wide_v), wide_v, alpha);
                    }
                }
                values.narrow_weigh(scores, TILE, count, k0, n, of_span, wide_v);
            }
            k0 += n;
        }
    }
    for r in 0..count {
        let (row, o) = (&mut *rows.add(r), o.add(r * wide_v));
        take(row, o, of_span.add(r * wide_v), wide_v);
        finish(p, b, row, o);
    }
}

/// Adds the output of a span, n floats, a multiple of four, and makes it zero for the next one.
#[inline(never)]
unsafe fn take(row: &mut Row, o: *mut f32, of_span: *mut f32, n: usize) {
    let alpha = splat(row.alpha);
    row.alpha = 1.0;
    let mut i = 0;
    while i < n {
        store(o.add(i), madd(load(o.add(i)), alpha, load(of_span.add(i))));
        store(of_span.add(i), splat(0.0));
        i += 4;
    }
}

/// Turns a tile of scores into weights `2^(s−m)` and updates m and l; returns what earlier output is scaled by.
#[inline(never)]
unsafe fn weigh(s: *mut f32, n: usize, row: &mut Row) -> f32 {
    fill(s.add(n), up4(n) - n, f32::NEG_INFINITY);
    let mut best = splat(row.m);
    let mut i = 0;
    while i < n {
        best = pmax(best, load(s.add(i)));
        i += 4;
    }
    let m = largest(best);
    if m == f32::NEG_INFINITY {
        fill(s, n, 0.0);
        return 1.0;
    }
    let exp2 = Exp2Neg::new();
    let mut total = splat(0.0);
    i = 0;
    while i < n {
        let e = exp2.of(sub(load(s.add(i)), splat(m)));
        store(s.add(i), e);
        total = add(total, e);
        i += 4;
    }
    let alpha = if m > row.m { exp2_neg1(row.m - m) } else { 1.0 };
    *row = Row {
        m,
        l: row.l * alpha + sum(total),
        ..*row
    };
    alpha
}

unsafe fn finish(p: &Attention, b: usize, row: &Row, o: *mut f32) {
    let (dv, out) = (p.dv as usize, p.out_row(b, row.h, row.i));
    scale(o, up4(dv), if row.l == 0.0 { 0.0 } else { 1.0 / row.l });
    core::ptr::copy_nonoverlapping(o, out, dv);
    if !p.lse.is_null() {
        let lse = if row.l == 0.0 {
            f32::NEG_INFINITY
        } else {
            row.m * LN_2 + log1(row.l)
        };
        *p.lse.add(p.row(b, row.h, row.i)) = lse;
    }
}
