//! Linear layers of many rows, from packed panels: `C (m, n) = A (m, k) · B (n, k)ᵀ`.
//!
//! Over the tiles of dot.rs, which read the operands where they lie: both are copied in the order in which the tile
//! reads them, A once per call and B as it is needed, widened to f32 on the way, so that a 5×8 tile takes four loads
//! per ten multiply-adds. Where the runtime checks bounds in software a load costs a branch, and branches share ports
//! with multiply-adds: 3×4 dot products take seven loads per twelve. Of the five rows four come from one load and
//! lane shuffles and one from a splatting load. Accumulators, operands and a splat are 14 of the 15 vector registers
//! V8 hands out. Measured in Deno 2.9 (V8 15) on a Xeon: the tile alone 96 % of the multiply-add peak of the core.
//!
//! The sums are those of dot.rs, bit by bit, so a row does not tell by its value how many others there were. There
//! every fourth product is added in one lane: here each of these chains is a pass of its own over panels that are
//! packed by chain, and the four results are reduced in the order of [`sum4`].
use crate::dtype::{at, at_mut, BFloat, Element, Half, Single, BF16, F32};
use crate::simd::*;

/// Rows and columns of the tile.
const MR: usize = 5;
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
    /// A panel of 5·⌈K / 4⌉·4 floats for every five rows.
    out: *mut f32,
    m: u32,
    k: u32,
    k_block: u32,
    /// Panels of one part.
    panels: u32,
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
    for i in begin * p.panels..(end * p.panels).min(p.m.div_ceil(MR as u32)) {
        let i = i as usize;
        let panel = p.out.add(i * MR * k.next_multiple_of(4));
        let mut k0 = 0;
        while k0 < k {
            let n = (k - k0).min(p.k_block as usize);
            let to = panel.add(MR * k0);
            pack::<MR>(
                a.from(0, k0),
                i * MR,
                p.m as usize,
                n,
                n.div_ceil(CHAINS) * MR,
                to,
            );
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
    /// `8·k_block + 32` floats and 160 for every five rows.
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
        for r in 0..(self.m - i).min(MR) {
            let c = at_mut(self.c, (i + r).wrapping_mul(self.ldc), 4).add(j);
            for h in 0..cols.div_ceil(4) {
                let sum = |chain: usize| load(sums.add(chain * TILE + r * NC + 4 * h));
                let v = add(add(sum(0), sum(2)), add(sum(1), sum(3)));
                store_up_to_4(c.add(4 * h), add(v, bias[h]), cols - 4 * h);
            }
        }
    }
}

/// One chain of a tile: `sums (5, 8) = a (steps, 5)ᵀ · b (steps, 8)`, or `+=`.
#[inline(never)]
unsafe fn chain(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
    let mut acc = [[splat(0.0); 2]; MR];
    if carry {
        for r in 0..MR {
            acc[r] = [load(sums.add(NC * r)), load(sums.add(NC * r + 4))];
        }
    }
    let (mut a, mut b) = (a, b);
    let end = a.add(MR * steps);
    // Branches between the steps as in dot.rs.
    loop {
        step(&mut acc, a, b);
        if a.add(MR) == end {
            break;
        }
        step(&mut acc, a.add(MR), b.add(NC));
        if a.add(2 * MR) == end {
            break;
        }
        step(&mut acc, a.add(2 * MR), b.add(2 * NC));
        if a.add(3 * MR) == end {
            break;
        }
        step(&mut acc, a.add(3 * MR), b.add(3 * NC));
        a = a.add(4 * MR);
        b = b.add(4 * NC);
        if a == end {
            break;
        }
    }
    for r in 0..MR {
        store(sums.add(NC * r), acc[r][0]);
        store(sums.add(NC * r + 4), acc[r][1]);
    }
}

#[inline(always)]
unsafe fn step(acc: &mut [[V; 2]; MR], a: *const f32, b: *const f32) {
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
    if W % 4 == 1 {
        let to = to.add(W - 1);
        match from.dtype {
            F32 => pack_one::<Single>(row(W - 1), k, apart, W, to),
            BF16 => pack_one::<BFloat>(row(W - 1), k, apart, W, to),
            _ => pack_one::<Half>(row(W - 1), k, apart, W, to),
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
