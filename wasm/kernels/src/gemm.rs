//! Linear layers of many rows, from packed panels: `C (m, n) = A (m, k) · B (n, k)ᵀ`.
//!
//! Over the tiles of dot.rs, which read the operands where they lie: both are copied in the order in which the tile
//! reads them, A once per call and B as it is needed, widened to f32 on the way, so that a tile takes few loads: where
//! the runtime checks bounds in software each costs a branch. 3×4 dot products take seven per twelve multiply-adds, the
//! 6×8 tile of six.rs four, and the 5×8 tile of the build without relaxed SIMD four per ten: of its rows four come from
//! one load and lane shuffles and one from a splatting load, and sums, operands and a splat are 14 of the 15 vector
//! registers V8 hands out.
//!
//! The sums are those of dot.rs, bit by bit, so a row does not tell by its value how many others there were. There
//! every fourth product is added in one lane: here each of these chains is a pass of its own over panels that are
//! packed by chain, and the four results are reduced in the order of [`sum4`].
use crate::attention::fill;
use crate::dtype::at_mut;
use crate::pack::{pack, Matrix, CHAINS};
use crate::simd::*;
use crate::six;
use crate::wide::four_by_sixteen;

/// A register tile.
pub trait Tile {
    const ROWS: usize;
    const COLUMNS: usize;
    /// One chain: `sums = aᵀ · b`, or `+=`, with `steps` rows of a and b, in an order of the tile's own.
    unsafe fn chain(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool);
    /// Sums as rows, in place.
    unsafe fn straighten(_sums: *mut f32) {}

    /// Packs rows of A.
    unsafe fn pack_rows(a: Matrix, first: usize, rows: usize, k: usize, apart: usize, to: *mut f32);
    /// Packs columns of C, which are rows of B.
    unsafe fn pack_columns(b: Matrix, first: usize, rows: usize, k: usize, apart: usize, to: *mut f32);
}

macro_rules! tile {
    ($name:ident, $rows:expr, $columns:literal, { $($own:item)* }) => {
        impl Tile for $name {
            const ROWS: usize = $rows;
            const COLUMNS: usize = $columns;
            $($own)*
            unsafe fn pack_rows(a: Matrix, first: usize, rows: usize, k: usize, apart: usize, to: *mut f32) {
                pack::<{ $rows }>(a, first, rows, k, apart, to);
            }
            unsafe fn pack_columns(b: Matrix, first: usize, rows: usize, k: usize, apart: usize, to: *mut f32) {
                pack::<$columns>(b, first, rows, k, apart, to);
            }
        }
    };
}

/// The tile of this build: six.rs, or five rows.
pub struct Narrow;
/// See wide.rs.
pub struct Wide;

const FIVE: usize = 5;

tile!(Narrow, if six::PRESENT { 6 } else { FIVE }, 8, {
    #[inline(always)]
    unsafe fn chain(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
        if six::PRESENT {
            six::six_sums(
                a,
                4 * Self::ROWS,
                b,
                b.add(Self::COLUMNS * steps),
                sums,
                carry as u32,
            );
        } else {
            five_sums(a, b, steps, sums, carry);
        }
    }
    #[inline(always)]
    unsafe fn straighten(sums: *mut f32) {
        if six::PRESENT {
            let mut rows = [[splat(0.0); 2]; 6];
            for (i, row) in rows.as_flattened_mut().iter_mut().enumerate() {
                *row = load(sums.add(4 * i));
            }
            six::straighten(&mut rows);
            for (i, row) in rows.as_flattened().iter().enumerate() {
                store(sums.add(4 * i), *row);
            }
        }
    }
});

tile!(Wide, 4, 16, {
    #[inline(always)]
    unsafe fn chain(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
        four_by_sixteen(a, b, steps, sums, carry);
    }
});

/// Columns of C by tiles of one kind; the contraction is cut into blocks of `k_block`, a multiple of four.
pub struct Gemm {
    /// What [`pack_rows`] made of A.
    pub a: *const f32,
    pub b: Matrix,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub k_block: usize,
    pub c: *mut f32,
    pub ldc: usize,
    /// (n) or null; added last.
    pub bias: *const f32,
    /// Columns · `k_block` + 32 floats, and the sums of four chains for every tile of rows.
    pub scratch: *mut f32,
}

impl Gemm {
    pub unsafe fn run<T: Tile>(&self) {
        let panels = self.m.div_ceil(T::ROWS);
        let depth = T::ROWS * self.k.next_multiple_of(4);
        let tile = T::ROWS * T::COLUMNS;
        let b = self.scratch;
        let sums = b.add(T::COLUMNS * self.k_block + 32);
        for j in (0..self.n).step_by(T::COLUMNS) {
            let mut k0 = 0;
            while k0 < self.k {
                let k = (self.k - k0).min(self.k_block);
                let steps = k.div_ceil(CHAINS);
                // A few floats between chains: stores at the same place of different pages hinder loads.
                let apart = steps * T::COLUMNS + 8;
                T::pack_columns(self.b.from(0, k0), j, self.n, k, apart, b);
                for i in 0..panels {
                    let sums = sums.add(i * CHAINS * tile);
                    let a = self.a.add(i * depth + T::ROWS * k0);
                    for r in 0..CHAINS {
                        let a = a.add(r * steps * T::ROWS);
                        T::chain(a, b.add(r * apart), steps, sums.add(r * tile), k0 > 0);
                    }
                    if k0 + k == self.k {
                        self.finish::<T>(sums, i * T::ROWS, j);
                    }
                }
                k0 += k;
            }
        }
    }

    /// Reduces the chains of a tile and writes what lies inside of C.
    #[inline(never)]
    unsafe fn finish<T: Tile>(&self, sums: *mut f32, i: usize, j: usize) {
        let tile = T::ROWS * T::COLUMNS;
        for x in (0..tile).step_by(4) {
            let sum = |chain: usize| load(sums.add(chain * tile + x));
            store(sums.add(x), add(add(sum(0), sum(2)), add(sum(1), sum(3))));
        }
        T::straighten(sums);
        let cols = (self.n - j).min(T::COLUMNS);
        for r in 0..(self.m - i).min(T::ROWS) {
            let c = at_mut(self.c, (i + r).wrapping_mul(self.ldc), 4).add(j);
            for x in (0..cols).step_by(4) {
                let mut v = load(sums.add(r * T::COLUMNS + x));
                if !self.bias.is_null() {
                    v = add(v, load_up_to_4(self.bias.add(j + x), cols - x));
                }
                store_up_to_4(c.add(x), v, cols - x);
            }
        }
    }
}

/// Times a tile: `rounds` chains of 128 steps, in 16 KiB of `room`.
#[no_mangle]
pub unsafe extern "C" fn probe_tiles(wide: u32, room: *mut f32, rounds: u32) {
    const STEPS: usize = 128;
    let (a, b, sums) = (room, room.add(6 * STEPS), room.add(22 * STEPS));
    fill(room, 22 * STEPS, 1.0);
    for _ in 0..rounds {
        if wide != 0 {
            Wide::chain(a, b, STEPS, sums, false);
        } else {
            Narrow::chain(a, b, STEPS, sums, false);
        }
    }
}

/// A chain of five rows.
#[inline(never)]
unsafe fn five_sums(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
    const NC: usize = Narrow::COLUMNS;
    let mut acc = [[splat(0.0); 2]; FIVE];
    if carry {
        for r in 0..FIVE {
            acc[r] = [load(sums.add(NC * r)), load(sums.add(NC * r + 4))];
        }
    }
    let (mut a, mut b) = (a, b);
    let end = a.add(FIVE * steps);
    // Branches between the steps as in dot.rs.
    loop {
        step(&mut acc, a, b);
        if a.add(FIVE) == end {
            break;
        }
        step(&mut acc, a.add(FIVE), b.add(NC));
        if a.add(2 * FIVE) == end {
            break;
        }
        step(&mut acc, a.add(2 * FIVE), b.add(2 * NC));
        if a.add(3 * FIVE) == end {
            break;
        }
        step(&mut acc, a.add(3 * FIVE), b.add(3 * NC));
        a = a.add(4 * FIVE);
        b = b.add(4 * NC);
        if a == end {
            break;
        }
    }
    for r in 0..FIVE {
        store(sums.add(NC * r), acc[r][0]);
        store(sums.add(NC * r + 4), acc[r][1]);
    }
}

#[inline(always)]
unsafe fn step(acc: &mut [[V; 2]; FIVE], a: *const f32, b: *const f32) {
    let x = load(a);
    let y = [load(b), load(b.add(4))];
    let mut row = |r: usize, x: V| {
        acc[r] = [madd(x, y[0], acc[r][0]), madd(x, y[1], acc[r][1])];
    };
    row(0, lane::<0>(x));
    row(1, lane::<1>(x));
    row(2, lane::<2>(x));
    row(3, lane::<3>(x));
    row(4, load_splat(a.add(4)));
}
