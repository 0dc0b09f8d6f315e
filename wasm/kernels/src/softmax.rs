//! Softmax over the last dimension, optionally with its log-sum-exp.
//!
//! Over the naive three passes with libm's exp: vectorised maximum, exponential and sum, and one multiplication by
//! the reciprocal. A row of −∞ gives zeros and a log-sum-exp of −∞.
use crate::dtype::read_f32;
use crate::math::{log1, ExpNeg};
use crate::simd::*;
use crate::strided::{cell, count, Outer, Rows};

#[repr(C)]
pub struct Softmax {
    x: *const u8,
    dtype: u32,
    outer: Outer,
    n: u32,
    strides: [u32; 6],
    /// (…, N) f32 contiguous.
    out: *mut f32,
    /// (…) f32 contiguous, or null.
    lse: *mut f32,
    /// Rows of one part.
    rows: u32,
}

#[no_mangle]
pub unsafe extern "C" fn softmax(params: *const Softmax, _scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let n = p.n as usize;
    let (first, last) = (begin * p.rows, (end * p.rows).min(count(&p.outer)));
    let mut rows = Rows::from(&p.outer, first);
    for r in first as usize..last as usize {
        let out = crate::dtype::at_mut(p.out, r.wrapping_mul(n), 4);
        let x = cell(p.x, p.dtype, rows.offset(&p.strides), 0, 0);
        read_f32(x, p.dtype, p.strides[5] as usize, n, out);
        let (m, l) = exponentials(out, n, f32::NEG_INFINITY);
        scale(out, n, if l == 0.0 { 0.0 } else { 1.0 / l });
        if !p.lse.is_null() {
            *p.lse.add(r) = log_sum(m, l);
        }
        rows.next();
    }
}

/// `m + ln l`, −∞ where nothing was summed.
pub fn log_sum(m: f32, l: f32) -> f32 {
    if l == 0.0 {
        f32::NEG_INFINITY
    } else {
        m + log1(l)
    }
}

/// Replaces x by `e^{x−m}`, m being its maximum or `floor` if that is larger; returns m and the sum.
/// Where everything is −∞ the values become zeros and so does the sum.
#[inline(never)]
pub unsafe fn exponentials(x: *mut f32, n: usize, floor: f32) -> (f32, f32) {
    let mut best = [splat(floor); 2];
    let mut i = 0;
    while i + 8 <= n {
        best[0] = pmax(best[0], load(x.add(i)));
        best[1] = pmax(best[1], load(x.add(i + 4)));
        i += 8;
    }
    let mut m = largest(pmax(best[0], best[1]));
    while i < n {
        let y = *x.add(i);
        m = if m < y { y } else { m };
        i += 1;
    }
    // With m = −∞ every difference would be NaN.
    let from = splat(if m == f32::NEG_INFINITY { 0.0 } else { m });
    let exp = ExpNeg::new();
    let mut acc = [splat(0.0); 2];
    i = 0;
    while i + 8 <= n {
        let (a, b) = (
            exp.of(sub(load(x.add(i)), from)),
            exp.of(sub(load(x.add(i + 4)), from)),
        );
        store(x.add(i), a);
        store(x.add(i + 4), b);
        acc = [add(acc[0], a), add(acc[1], b)];
        i += 8;
    }
    let mut l = sum(add(acc[0], acc[1]));
    while i < n {
        let e = extract::<0>(exp.of(sub(splat(*x.add(i)), from)));
        *x.add(i) = e;
        l += e;
        i += 1;
    }
    (m, l)
}

#[inline(never)]
pub unsafe fn scale(x: *mut f32, n: usize, by: f32) {
    let mut i = 0;
    while i + 4 <= n {
        store(x.add(i), mul(load(x.add(i)), splat(by)));
        i += 4;
    }
    while i < n {
        *x.add(i) *= by;
        i += 1;
    }
}
