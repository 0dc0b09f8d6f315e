//! Attention that materialises its scores.
//!
//! Over the naive loops: a block of query rows shares each pass over keys and values through the register tiles of
//! dot.rs and outer.rs. Scores live in the weights output where it is wanted, else in scratch memory. Keys before
//! the first and behind the last that a row of the block sees are left out, whichever mask hides them: their
//! weights are zeros, and sums of the others keep their order. With a causal mask that is half of the work.
use crate::attention::{copy_scaled, fill, Attention};
use crate::dtype::at_mut;
use crate::math::exp_neg1;
use crate::softmax::{exponentials, log_sum, scale};
use crate::tile::up4;

#[no_mangle]
pub unsafe extern "C" fn attention_eager(params: *const Attention, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let blocks = p.q_len.div_ceil(p.q_block);
    for part in begin..end {
        let i0 = part % blocks * p.q_block;
        let bh = part / blocks;
        let rows = (p.q_len - i0).min(p.q_block);
        rows_of(
            p,
            scratch as *mut f32,
            (bh / p.h) as usize,
            (bh % p.h) as usize,
            i0 as usize,
            rows as usize,
        );
    }
}

unsafe fn rows_of(p: &Attention, scratch: *mut f32, b: usize, h: usize, i0: usize, rows: usize) {
    let (d, dv, n) = (p.d as usize, p.dv as usize, p.k_len as usize);
    let kv = h / (p.h / p.hkv) as usize;
    let q = scratch;
    let scores = if p.weights.is_null() {
        q.add(rows * up4(d))
    } else {
        at_mut(p.weights, p.row(b, h, i0).wrapping_mul(n), 4)
    };
    for r in 0..rows {
        copy_scaled(p.query(b, h, i0 + r), d, p.scaling, q.add(r * up4(d)));
    }
    let (lo, hi) = visible(p, b, h, i0, rows);
    let len = hi - lo;
    let inner = scores.add(lo);
    p.keys(b, kv).scores(q, up4(d), rows, lo, len, inner, n);
    p.call_hook(inner, n, [b, h, i0, lo], rows, len);
    for r in 0..rows {
        let i = i0 + r;
        let row = scores.add(r * n);
        p.mask_scores(p.range(b, i), b, h, i, lo, len, row.add(lo));
        p.hide_blocks(b, h, i, row);
        let sink = p.sink(h);
        let (m, mut l) = exponentials(row.add(lo), len, sink);
        if m > f32::NEG_INFINITY {
            l += exp_neg1(sink - m);
        }
        scale(row.add(lo), len, if l == 0.0 { 0.0 } else { 1.0 / l });
        fill(row, lo, 0.0);
        fill(row.add(hi), n - hi, 0.0);
        if !p.lse.is_null() {
            *p.lse.add(p.row(b, h, i)) = log_sum(m, l);
        }
    }
    let values = p.values(b, kv);
    let (c, ldc) = (p.out_row(b, h, i0), p.h as usize * dv);
    for r in 0..rows {
        fill(c.add(r * ldc), dv, 0.0);
    }
    values.weigh(inner, n, rows, lo, len, c, ldc);
}

/// Keys outside of which no row sees any by position or by the dense mask. The bounds are multiples of eight, or
/// the end: the steps in which a row is summed, so that leaving keys out changes no bit.
#[inline(never)]
unsafe fn visible(p: &Attention, b: usize, h: usize, i0: usize, rows: usize) -> (usize, usize) {
    let n = p.k_len as usize;
    let (mut lo, mut hi) = (n, 0);
    for i in i0..i0 + rows {
        let range = p.range(b, i);
        let (mut first, mut last) = (range.lo as usize, range.hi as usize);
        if p.mask_kind != 0 {
            // Only what would widen the bounds is looked at.
            let row = p.mask_row(b, h, i);
            while first < last.min(lo) {
                let part = (last - first).min(64);
                let (shown, _) = p.mask_bits(row, first, part);
                if shown != 0 {
                    first += shown.trailing_zeros() as usize;
                    break;
                }
                first += part;
            }
            while last > first.max(hi) {
                let part = (last - first).min(64);
                let (shown, _) = p.mask_bits(row, last - part, part);
                if shown != 0 {
                    last = last - part + 64 - shown.leading_zeros() as usize;
                    break;
                }
                last -= part;
            }
        }
        if first < last {
            lo = lo.min(first);
            hi = hi.max(last);
        }
    }
    if lo >= hi {
        return (0, 0);
    }
    (lo & !7, hi.next_multiple_of(8).min(n))
}
