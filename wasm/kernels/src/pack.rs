//! Operands of a large product in the order in which its tiles read them, widened to f32 on the way.
//!
//! A sum is four chains (gemm.rs), each a pass of its own, so a panel is packed by chain: all steps of the first, then
//! all of the second.
use crate::dtype::{at, BFloat, Element, Half, Single, BF16, F32};
use crate::gemm::{Narrow, Tile, Wide};
use crate::simd::*;

/// Chains of a sum: products k, k + 4, k + 8, … are added in one.
pub const CHAINS: usize = 4;

/// A matrix of any float type; `ld` elements from one row to the next.
#[derive(Clone, Copy)]
pub struct Matrix {
    pub p: *const u8,
    pub dtype: u32,
    pub ld: usize,
}

impl Matrix {
    /// The matrix from (row, col) on; wrapping, because strides broadcast and memory may be 4 GiB.
    pub fn from(self, row: usize, col: usize) -> Self {
        let bytes = crate::dtype::size(self.dtype);
        let p = at(at(self.p, row.wrapping_mul(self.ld), bytes), col, bytes);
        Matrix { p, ..self }
    }
}

/// Rows of A as the tile reads them.
#[repr(C)]
pub struct Pack {
    /// (M, K) f32, rows `ld` apart.
    a: *const u8,
    ld: u32,
    /// A panel of ⌈K / 4⌉·4 floats a row for the rows of every tile.
    out: *mut f32,
    m: u32,
    k: u32,
    k_block: u32,
    /// Rows of one part: a multiple of the rows of every tile.
    rows: u32,
    /// Whether tiles are wide.
    wide: u32,
}

/// Packs panels, each block of the contraction by itself.
#[no_mangle]
pub unsafe extern "C" fn pack_rows(params: *const Pack, _scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    if p.wide != 0 {
        panels::<Wide>(p, begin as usize, end as usize);
    } else {
        panels::<Narrow>(p, begin as usize, end as usize);
    }
}

unsafe fn panels<T: Tile>(p: &Pack, begin: usize, end: usize) {
    let (rows, m, k) = (p.rows as usize, p.m as usize, p.k as usize);
    let a = Matrix {
        p: p.a,
        dtype: F32,
        ld: p.ld as usize,
    };
    for i in begin * rows / T::ROWS..(end * rows).min(m).div_ceil(T::ROWS) {
        let panel = p.out.add(i * T::ROWS * k.next_multiple_of(4));
        let mut k0 = 0;
        while k0 < k {
            let n = (k - k0).min(p.k_block as usize);
            let to = panel.add(T::ROWS * k0);
            T::pack_rows(a.from(0, k0), i * T::ROWS, m, n, n.div_ceil(CHAINS) * T::ROWS, to);
            k0 += n;
        }
    }
}

/// Packs W rows from `first` on, the last one again where there are no more: element k of them goes to step k / 4 of
/// chain k % 4, W floats a step, chains `apart` floats apart. What is missing in the last steps is zero.
pub unsafe fn pack<const W: usize>(
    from: Matrix,
    first: usize,
    rows: usize,
    k: usize,
    apart: usize,
    to: *mut f32,
) {
    let row = |r: usize| from.from((first + r).min(rows - 1), 0).p;
    for q in 0..W / 4 {
        let p = [row(4 * q), row(4 * q + 1), row(4 * q + 2), row(4 * q + 3)];
        let to = to.add(4 * q);
        match from.dtype {
            F32 => pack_four::<Single>(p, k, apart, W, to),
            BF16 => pack_four::<BFloat>(p, k, apart, W, to),
            _ => pack_four::<Half>(p, k, apart, W, to),
        }
    }
    for r in W / 4 * 4..W {
        let to = to.add(r);
        match from.dtype {
            F32 => pack_one::<Single>(row(r), k, apart, W, to),
            BF16 => pack_one::<BFloat>(row(r), k, apart, W, to),
            _ => pack_one::<Half>(row(r), k, apart, W, to),
        }
    }
}

/// Four rows, turned: four floats of an element at a time.
#[inline(never)]
unsafe fn pack_four<E: Element>(p: [*const u8; 4], k: usize, apart: usize, advance: usize, to: *mut f32) {
    let held = E::hold();
    let mut p = p;
    let mut to = [to, to.add(apart), to.add(2 * apart), to.add(3 * apart)];
    let end = at(p[0], k & !3, E::BYTES);
    while p[0] != end {
        let v = transpose4(p.map(|p| E::load4(p, 0, held)));
        for (to, v) in to.iter_mut().zip(v) {
            store(*to, v);
            *to = to.add(advance);
        }
        p = p.map(|p| at(p, 4, E::BYTES));
    }
    if k & 3 != 0 {
        let v = transpose4(p.map(|p| E::load_tail(p, k & 3)));
        for (to, v) in to.iter().zip(v) {
            store(*to, v);
        }
    }
}

/// One row, an element at a time.
#[inline(never)]
unsafe fn pack_one<E: Element>(p: *const u8, k: usize, apart: usize, advance: usize, to: *mut f32) {
    let held = E::hold();
    let (mut p, mut to) = (p, to);
    let put = |v: V, to: *mut f32| {
        *to = extract::<0>(v);
        *to.add(apart) = extract::<1>(v);
        *to.add(2 * apart) = extract::<2>(v);
        *to.add(3 * apart) = extract::<3>(v);
    };
    let end = at(p, k & !3, E::BYTES);
    while p != end {
        put(E::load4(p, 0, held), to);
        to = to.add(advance);
        p = at(p, 4, E::BYTES);
    }
    if k & 3 != 0 {
        put(E::load_tail(p, k & 3), to);
    }
}
