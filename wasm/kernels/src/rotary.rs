//! The rotary table and the half-split rotation of queries and keys (RoPE, Su et al. 2021).
//!
//! The table follows Transformers: the angle is the f32 product of position and frequency, its cosine and sine are
//! those of that f32 number, taken in f64 and rounded once. The rotation rounds each product (no fused
//! multiply-add), as the reference does; over the naive loop it is vectorised and reads each table row in place.
use crate::dtype::{at, at_mut};
use crate::simd::*;

#[repr(C)]
pub struct RotaryTable {
    /// (rows, D) f32 contiguous.
    out: *mut f32,
    d: u32,
    /// Position of row 0.
    first: u32,
    scaling: f32,
    rows: u32,
    /// Columns `column..column + count` of the D/2 are done by this call.
    column: u32,
    count: u32,
    /// Rows of one part.
    part_rows: u32,
    frequencies: [f32; 96],
}

#[no_mangle]
pub unsafe extern "C" fn rotary_table(params: *const RotaryTable, _scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let half = p.d as usize / 2;
    for r in begin * p.part_rows..(end * p.part_rows).min(p.rows) {
        let position = (p.first + r) as f32;
        let row = at_mut(p.out, (r as usize).wrapping_mul(p.d as usize), 4).add(p.column as usize);
        for c in 0..p.count as usize {
            let angle = (position * *p.frequencies.as_ptr().add(c)) as f64;
            *row.add(c) = libm::cos(angle) as f32 * p.scaling;
            *row.add(half + c) = libm::sin(angle) as f32 * p.scaling;
        }
    }
}

#[repr(C)]
pub struct Rotary {
    /// (B, H, N, D) f32, the last dimension contiguous.
    x: *const f32,
    strides: [u32; 3],
    /// Rows of D = [cos (D/2), sin (D/2)], `ldt` apart.
    table: *const f32,
    ldt: u32,
    /// (B, N) i32.
    positions: *const i32,
    position_strides: [u32; 2],
    /// (B, H, N, D) f32 contiguous.
    out: *mut f32,
    b: u32,
    h: u32,
    n: u32,
    d: u32,
    /// Rows of one part.
    rows: u32,
}

#[no_mangle]
pub unsafe extern "C" fn rotary(params: *const Rotary, _scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let d = p.d as usize;
    for r in begin * p.rows..(end * p.rows).min(p.b * p.h * p.n) {
        let (b, h, n) = (
            (r / p.n / p.h) as usize,
            (r / p.n % p.h) as usize,
            (r % p.n) as usize,
        );
        let place = |s: &[u32], i: &[usize]| {
            i.iter().zip(s).fold(0usize, |sum, (&i, &s)| {
                sum.wrapping_add(i.wrapping_mul(s as usize))
            })
        };
        let x = at(p.x, place(&p.strides, &[b, h, n]), 4);
        let position = *at(p.positions, place(&p.position_strides, &[b, n]), 4) as usize;
        let table = at(p.table, position.wrapping_mul(p.ldt as usize), 4);
        rotate(x, table, at_mut(p.out, (r as usize).wrapping_mul(d), 4), d / 2);
    }
}

#[inline(never)]
unsafe fn rotate(x: *const f32, table: *const f32, out: *mut f32, half: usize) {
    let mut i = 0;
    while i + 4 <= half {
        let (a, b) = (load(x.add(i)), load(x.add(half + i)));
        let (cos, sin) = (load(table.add(i)), load(table.add(half + i)));
        store(out.add(i), sub(mul(a, cos), mul(b, sin)));
        store(out.add(half + i), add(mul(b, cos), mul(a, sin)));
        i += 4;
    }
    while i < half {
        let (a, b) = (*x.add(i), *x.add(half + i));
        let (cos, sin) = (*table.add(i), *table.add(half + i));
        *out.add(i) = a * cos - b * sin;
        *out.add(half + i) = b * cos + a * sin;
        i += 1;
    }
}
