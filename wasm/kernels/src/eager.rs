//! Attention that materialises its scores.
//!
//! Over the naive loops: a block of query rows shares each pass over keys and values through the register tiles of
//! dot.rs and outer.rs. Scores live in the weights output where it is wanted, else in scratch memory.
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
    p.keys(b, kv).scores(q, up4(d), rows, 0, n, scores, n);
    p.call_hook(scores, n, [b, h, i0, 0], rows, n);
    for r in 0..rows {
        let i = i0 + r;
        let row = scores.add(r * n);
        p.mask_scores(p.range(b, i), b, h, i, 0, n, row);
        p.hide_blocks(b, h, i, row);
        let sink = p.sink(h);
        let (m, mut l) = exponentials(row, n, sink);
        if m > f32::NEG_INFINITY {
            l += exp_neg1(sink - m);
        }
        scale(row, n, if l == 0.0 { 0.0 } else { 1.0 / l });
        if !p.lse.is_null() {
            *p.lse.add(p.row(b, h, i)) = log_sum(m, l);
        }
    }
    let values = p.values(b, kv);
    let (c, ldc) = (p.out_row(b, h, i0), p.h as usize * dv);
    for r in 0..rows {
        fill(c.add(r * ldc), dv, 0.0);
    }
    values.weigh(scores, n, rows, 0, n, c, ldc);
}
