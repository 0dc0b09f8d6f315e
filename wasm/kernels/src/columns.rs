//! The register tile of the tiled attention kernel: products with eight columns, which are its queries.
//!
//! Ladder: over outer.rs, whose 4×8 tile takes its side of four from four rows, so that eight sums, four rows, two
//! operands and a splat are 15 registers and V8 spills one of them in every step: both operands here run along the
//! contraction, the side that is splatted is one load and a splatting load for five rows (gemm.rs), 14 registers
//! and no shuffled rows to hold. The keys are turned for that once a tile; values lie so already. Over that, where there
//! is relaxed SIMD, six rows (six.rs). An element of C is one chain over the contraction, whatever the tile. Maxima are
//! taken and earlier output is scaled in the registers of a tile, which saves a pass over memory each.
use crate::dtype::at;
use crate::simd::*;
use crate::wide::eight_by_eight;
use core::mem::MaybeUninit;

/// How a step multiplies.
pub trait Multiply {
    /// `sum + x·y`, x being a word of A in all lanes and y four words of B.
    fn add(x: V, y: V, sum: V) -> V;
}

/// Words are floats.
pub struct Floats;

impl Multiply for Floats {
    #[inline(always)]
    fn add(x: V, y: V, sum: V) -> V {
        madd(x, y, sum)
    }
}

/// What surrounds the product: where sums begin, what becomes of them, and what is done between tiles.
pub trait Around {
    type By: Multiply;
    /// The beginning of the sums of a row of C.
    fn begin(&self) -> [V; 2];
    /// Takes their end, for the row at `c`.
    unsafe fn end(&mut self, sums: [V; 2], c: *mut f32);
    /// Called after each tile.
    unsafe fn between(&mut self);
    /// Whether [`Around::six`] is there.
    const SIX: bool = false;
    /// Six rows of C by a tile of their own (six.rs), sums from zero and what becomes of them; A and B step by `next_a`
    /// and 32 bytes, up to `end`.
    unsafe fn six(&mut self, _a: *const f32, _next_a: usize, _b: *const f32, _end: *const f32, _c: *mut f32) {
    }
}

/// `C (m, 8) = A (k, m)ᵀ · B (k, 8)` as `around` has it, with m a multiple of 4 and k > 0; rows of A lie `lda`
/// apart, B and C are contiguous. `wide` tiles multiply floats.
#[inline(never)]
pub unsafe fn columns<X: Around>(
    a: *const f32,
    lda: usize,
    m: usize,
    b: *const f32,
    k: usize,
    c: *mut f32,
    around: &mut X,
    wide: bool,
) {
    let mut i = 0;
    while wide && i + 8 <= m {
        let mut sums = MaybeUninit::<[f32; 64]>::uninit();
        let sums = sums.as_mut_ptr() as *mut f32;
        eight_by_eight(a.add(i), 4 * lda, b, k, sums);
        for r in (0..64).step_by(8) {
            around.end([load(sums.add(r)), load(sums.add(r + 4))], c.add(8 * i + r));
        }
        around.between();
        i += 8;
    }
    if X::SIX {
        // And at most two tiles of four rows, which make up any multiple of four.
        let left = m - i;
        let sixes = i + left - [0, 8, 4][left % 6 / 2];
        while i < sixes {
            around.six(a.add(i), 4 * lda, b, b.add(8 * k), c.add(8 * i));
            around.between();
            i += 6;
        }
    }
    // Or tiles of five rows, and at most four of four.
    let fives = if X::SIX { 0 } else { m - (m - i) / 4 % 5 * 4 };
    while i < fives {
        tile::<X, 5>(a.add(i), lda, b, k, c.add(8 * i), around);
        i += 5;
    }
    while i < m {
        tile::<X, 4>(a.add(i), lda, b, k, c.add(8 * i), around);
        i += 4;
    }
}

#[inline(always)]
unsafe fn tile<X: Around, const MR: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    k: usize,
    c: *mut f32,
    around: &mut X,
) {
    let mut acc = [around.begin(); MR];
    let (mut a, mut b) = (a, b);
    let end = b.add(8 * k);
    // Branches between the steps as in dot.rs.
    loop {
        step::<X::By, MR>(&mut acc, a, b);
        a = at(a, lda, 4);
        if b.add(8) == end {
            break;
        }
        step::<X::By, MR>(&mut acc, a, b.add(8));
        a = at(a, lda, 4);
        if b.add(16) == end {
            break;
        }
        step::<X::By, MR>(&mut acc, a, b.add(16));
        a = at(a, lda, 4);
        if b.add(24) == end {
            break;
        }
        step::<X::By, MR>(&mut acc, a, b.add(24));
        a = at(a, lda, 4);
        b = b.add(32);
        if b == end {
            break;
        }
    }
    for r in 0..MR {
        around.end(acc[r], c.add(8 * r));
    }
    around.between();
}

#[inline(always)]
unsafe fn step<M: Multiply, const MR: usize>(acc: &mut [[V; 2]; MR], a: *const f32, b: *const f32) {
    let x = load(a);
    let y = [load(b), load(b.add(4))];
    let mut row = |r: usize, x: V| {
        acc[r] = [M::add(x, y[0], acc[r][0]), M::add(x, y[1], acc[r][1])];
    };
    row(0, lane::<0>(x));
    row(1, lane::<1>(x));
    row(2, lane::<2>(x));
    row(3, lane::<3>(x));
    if MR == 5 {
        row(4, load_splat(a.add(4)));
    }
}

/// Largest elements of the columns of C (len, 8), or `m` where that is larger; len is a multiple of 4.
#[inline(never)]
pub unsafe fn column_maxima(c: *const f32, len: usize, m: [V; 2]) -> [V; 2] {
    let mut m = [m[0], m[1], m[0], m[1]];
    let mut s = c;
    for _ in 0..len / 2 {
        for (v, x) in m.iter_mut().enumerate() {
            *x = pmax(*x, load(s.add(4 * v)));
        }
        s = s.add(16);
    }
    [pmax(m[0], m[2]), pmax(m[1], m[3])]
}
