//! Reductions of the last dimension: `reduce` (sum, max, mean) and `argmax`.
//!
//! Over the naive loop: four independent chains of four lanes, combined in a fixed order, so that a sum depends
//! on the row's values and length only.
use crate::dtype::{at, size};
use crate::simd::*;
use crate::strided::{as_f32, cell, count, Outer, Rows};

#[repr(C)]
pub struct Reduce {
    /// 0 sum, 1 max, 2 mean; unused by argmax.
    op: u32,
    x: *const u8,
    dtype: u32,
    outer: Outer,
    n: u32,
    /// Elements; the last one belongs to the reduced dimension.
    strides: [u32; 6],
    /// One f32 (argmax: i32) per row, contiguous.
    out: *mut f32,
    /// Rows of one part.
    rows: u32,
}

/// Elements staged at a time; a multiple of 16, so that the order of summation ignores staging.
const BLOCK: usize = 1024;

/// Lane totals of `f` over `n` elements: chain `c` takes vectors `4j + c`.
#[inline(always)]
unsafe fn accumulate(x: *const f32, n: usize, acc: &mut [V; 4], pad: f32, f: impl Fn(V, V) -> V) {
    let mut i = 0;
    while i + 16 <= n {
        for (c, a) in acc.iter_mut().enumerate() {
            *a = f(*a, load(x.add(i + 4 * c)));
        }
        i += 16;
    }
    let mut c = 0;
    while i + 4 <= n {
        acc[c] = f(acc[c], load(x.add(i)));
        c += 1;
        i += 4;
    }
    if i < n {
        let mut last = [pad; 4];
        core::ptr::copy_nonoverlapping(x.add(i), last.as_mut_ptr(), n - i);
        acc[0] = f(acc[0], vec4(last));
    }
}

/// Folds a row of any type and stride, `BLOCK` elements at a time.
#[inline(always)]
unsafe fn fold(p: &Reduce, row: usize, room: *mut f32, start: f32, f: impl Fn(V, V) -> V + Copy) -> V {
    let mut acc = [splat(start); 4];
    let stride = p.strides[5] as usize;
    let (mut i, n) = (0, p.n as usize);
    while i < n {
        let len = (n - i).min(BLOCK);
        let x = as_f32(cell(p.x, p.dtype, row, i, stride), p.dtype, stride, len, room);
        accumulate(x, len, &mut acc, start, f);
        i += len;
    }
    f(f(acc[0], acc[1]), f(acc[2], acc[3]))
}

/// Sum of contiguous values in the order every reduction here uses.
pub unsafe fn sum_of(x: *const f32, n: usize, f: impl Fn(V, V) -> V) -> f32 {
    let mut acc = [splat(0.0); 4];
    accumulate(x, n, &mut acc, 0.0, f);
    sum(add(add(acc[0], acc[1]), add(acc[2], acc[3])))
}

fn largest_or_nan(v: V) -> f32 {
    let b = max(v, high_halves(v, v));
    extract::<0>(max(b, lane::<1>(b)))
}

#[no_mangle]
pub unsafe extern "C" fn reduce(params: *const Reduce, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    each_row(p, begin, end, |r, row| {
        let room = scratch as *mut f32;
        *p.out.add(r) = match p.op {
            1 => largest_or_nan(fold(p, row, room, f32::NEG_INFINITY, max)),
            op => {
                let total = sum(fold(p, row, room, 0.0, add));
                if op == 2 {
                    total / p.n as f32
                } else {
                    total
                }
            }
        };
    });
}

unsafe fn each_row(p: &Reduce, begin: u32, end: u32, mut f: impl FnMut(usize, usize)) {
    let (first, last) = (begin * p.rows, (end * p.rows).min(count(&p.outer)));
    let mut rows = Rows::from(&p.outer, first);
    for r in first..last {
        f(r as usize, rows.offset(&p.strides));
        rows.next();
    }
}

/// First index of the largest element; a NaN counts as larger than everything, as in PyTorch.
#[no_mangle]
pub unsafe extern "C" fn argmax(params: *const Reduce, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    each_row(p, begin, end, |r, row| {
        let m = largest_or_nan(fold(p, row, scratch as *mut f32, f32::NEG_INFINITY, max));
        let stride = p.strides[5] as usize;
        let mut index = 0;
        for i in 0..p.n as usize {
            let mut x = 0.0;
            let at = at(p.x, row.wrapping_add(i.wrapping_mul(stride)), size(p.dtype));
            crate::dtype::read_f32(at, p.dtype, 1, 1, &mut x);
            if x == m || (x.is_nan() && m.is_nan()) {
                index = i;
                break;
            }
        }
        *(p.out as *mut i32).add(r) = index as i32;
    });
}
