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
use crate::dtype::{at, at_mut, BFloat, Element, Half, Single, BF16, F32};
use crate::simd::*;
use crate::six;

/// Rows and columns of the tile.
const MR: usize = if six::PRESENT { 6 } else { FIVE };
const FIVE: usize = 5;
const NC: usize = 8;
/// Chains of a sum: products k, k + 4, k + 8, … are added in one.
const CHAINS: usize = 4;
/// Floats of one chain of a tile.
const TILE: usize = MR * NC;

/// A matrix of any float type; `ld` elements from one row to the next.
#[derive(Clone, Copy)]
pub struct Matrix {
    pub p: *const u8,
    pub dtype: u32,
    pub ld: usize,
}

impl Matrix {
    /// The matrix from (row, col) on; wrapping, because strides broadcast and memory may be 4 GiB.
    fn from(self, row: usize, col: usize) -> Self {
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
    /// Rows of one part: a multiple of the rows of both builds' tiles.
    rows: u32,
}

/// Packs panels, each block of the contraction by itself.
#[no_mangle]
pub unsafe extern "C" fn pack_rows(params: *const Pack, _scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let k = p.k as usize;
    let a = Matrix {
        p: p.a,
        dtype: F32,
        ld: p.ld as usize,
    };
    let (rows, m) = (p.rows as usize, p.m as usize);
    for i in begin as usize * rows / MR..(end as usize * rows).min(m).div_ceil(MR) {
        let panel = p.out.add(i * MR * k.next_multiple_of(4));
        let mut k0 = 0;
        while k0 < k {
            let n = (k - k0).min(p.k_block as usize);
            let to = panel.add(MR * k0);
            pack::<MR>(a.from(0, k0), i * MR, m, n, n.div_ceil(CHAINS) * MR, to);
            k0 += n;
        }
    }
}

/// Columns of C; the contraction is cut into blocks of `k_block`, a multiple of four.
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
    /// `8·k_block + 32` floats and four tiles for the rows of every tile.
    pub scratch: *mut f32,
}

impl Gemm {
    pub unsafe fn run(&self) {
        let panels = self.m.div_ceil(MR);
        let depth = MR * self.k.next_multiple_of(4);
        let b = self.scratch;
        let sums = b.add(NC * self.k_block + 32);
        for j in (0..self.n).step_by(NC) {
            let mut k0 = 0;
            while k0 < self.k {
                let k = (self.k - k0).min(self.k_block);
                let steps = k.div_ceil(CHAINS);
                // A few floats between chains: stores at the same place of different pages hinder loads.
                let apart = steps * NC + 8;
                pack::<NC>(self.b.from(0, k0), j, self.n, k, apart, b);
                for i in 0..panels {
                    let sums = sums.add(i * CHAINS * TILE);
                    let a = self.a.add(i * depth + MR * k0);
                    for r in 0..CHAINS {
                        let a = a.add(r * steps * MR);
                        chain(a, b.add(r * apart), steps, sums.add(r * TILE), k0 > 0);
                    }
                    if k0 + k == self.k {
                        self.finish(sums, i * MR, j);
                    }
                }
                k0 += k;
            }
        }
    }

    /// Reduces the chains of a tile and writes what lies inside of C.
    #[inline(never)]
    unsafe fn finish(&self, sums: *const f32, i: usize, j: usize) {
        let cols = (self.n - j).min(NC);
        let mut bias = [splat(0.0); 2];
        if !self.bias.is_null() {
            bias[0] = load_up_to_4(self.bias.add(j), cols);
            if cols > 4 {
                bias[1] = load_up_to_4(self.bias.add(j + 4), cols - 4);
            }
        }
        let mut rows = [[splat(0.0); 2]; MR];
        for r in 0..MR {
            for h in 0..2 {
                let sum = |chain: usize| load(sums.add(chain * TILE + r * NC + 4 * h));
                rows[r][h] = add(add(sum(0), sum(2)), add(sum(1), sum(3)));
            }
        }
        if let Some(rows) = rows.first_chunk_mut() {
            six::straighten(rows);
        }
        for r in 0..(self.m - i).min(MR) {
            let c = at_mut(self.c, (i + r).wrapping_mul(self.ldc), 4).add(j);
            for h in 0..cols.div_ceil(4) {
                store_up_to_4(c.add(4 * h), add(rows[r][h], bias[h]), cols - 4 * h);
            }
        }
    }
}

/// One chain of a tile: `sums = aᵀ · b`, or `+=`, with `steps` rows of a (MR) and b (8); sums as six.rs has them where
/// that is present.
#[inline(always)]
unsafe fn chain(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
    if six::PRESENT {
        six::six_sums(a, 4 * MR, b, b.add(NC * steps), sums, carry as u32);
    } else {
        five_sums(a, b, steps, sums, carry);
    }
}

/// A chain of five rows.
#[inline(never)]
unsafe fn five_sums(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
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

/// Packs W rows from `first` on, the last one again where there are no more: element k of them goes to step k / 4 of
/// chain k % 4, W floats a step, chains `apart` floats apart. What is missing in the last steps is zero.
unsafe fn pack<const W: usize>(
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
