//! Register tiles of dot products: `C = A · Bᵀ`, both operands running along the contraction.
//!
//! Ladder: V8 has 15 vector registers to give, and where the runtime checks bounds in software each load carries a
//! compare, so a tile is judged by loads per multiply-add: 3×4 takes 7 per 12 and needs no packing. Its order of
//! summation, four lanes and a fixed reduction, is the same for every row count, which is what makes a row of a
//! large batch equal the same row alone. Measured in Deno 2.9 (V8 15) on a Xeon: 80 % of the multiply-add peak of
//! the core; letting LLVM order a block of four steps freely cost a tenth of it, because it chains the additions of
//! one accumulator, keeps all loads of the block alive and spills. The branches between steps prevent that.
use crate::dtype::{at, at_mut, Element};
use crate::simd::*;

/// One block of `C (m, n) = A (m, k) · B (n, k)ᵀ`; strides in elements.
pub struct Nt {
    pub a: *const f32,
    pub lda: usize,
    pub m: usize,
    pub b: *const u8,
    pub ldb: usize,
    pub n: usize,
    pub k: usize,
    /// Lane sums carried between blocks of the contraction: 16 floats per row and four columns.
    pub part: *mut f32,
    /// The first block starts from zero, the last one reduces and writes `c`.
    pub first: bool,
    pub last: bool,
    pub c: *mut f32,
    pub ldc: usize,
    /// (n) or null; added last.
    pub bias: *const f32,
}

/// Floats of [`Nt::part`] for m rows and n columns.
pub const fn part_floats(m: usize, n: usize) -> usize {
    m * n.div_ceil(4) * 16
}

impl Nt {
    pub unsafe fn run<E: Element>(&self) {
        // Few rows leave a large B to be waited for. Four neighbouring rows of it side by side end before they are
        // fetched ahead; quarters are four long ascending streams, however short a row is.
        let streams = self.m < 7 && self.n.is_multiple_of(4) && self.first && self.last;
        let (step, apart) = if streams { (1, self.n / 4) } else { (4, 1) };
        let mut j = 0;
        while j * 4 < self.n * step {
            let cols = (self.n - j).min(4);
            let row = |r: usize| {
                let row = j + r.min(cols - 1) * apart;
                at(self.b, row.wrapping_mul(self.ldb), E::BYTES)
            };
            let b = [row(0), row(1), row(2), row(3)];
            // Four rows left are two pairs: one row alone has too few chains to hide the latency of an addition.
            let (triples, pairs) = match self.m % 3 {
                0 => (self.m / 3, 0),
                1 if self.m > 1 => (self.m / 3 - 1, 2),
                1 => (0, 0),
                _ => (self.m / 3, 1),
            };
            let to = Columns { j, apart, cols };
            nt_panel::<E, 3>(self, b, 0, triples, to);
            nt_panel::<E, 2>(self, b, 3 * triples, pairs, to);
            if self.m == 1 {
                nt_panel::<E, 1>(self, b, 0, 1, to);
            }
            j += step;
        }
    }
}

/// The columns of a panel: `cols` from `j` on, `apart` from each other; more than one apart they are four.
#[derive(Clone, Copy)]
struct Columns {
    j: usize,
    apart: usize,
    cols: usize,
}

impl Columns {
    #[inline(never)]
    unsafe fn load(self, p: *const f32) -> V {
        let p = p.add(self.j);
        if self.apart > 1 {
            return vec4([0, 1, 2, 3].map(|c: usize| *p.add(c * self.apart)));
        }
        load_up_to_4(p, self.cols)
    }

    #[inline(never)]
    unsafe fn store(self, p: *mut f32, v: V) {
        let p = p.add(self.j);
        if self.apart == 1 {
            return store_up_to_4(p, v, self.cols);
        }
        *p = extract::<0>(v);
        *p.add(self.apart) = extract::<1>(v);
        *p.add(2 * self.apart) = extract::<2>(v);
        *p.add(3 * self.apart) = extract::<3>(v);
    }
}

/// `groups` times `MR` rows from row `i` against four columns.
#[inline(never)]
unsafe fn nt_panel<E: Element, const MR: usize>(
    t: &Nt,
    b: [*const u8; 4],
    mut i: usize,
    groups: usize,
    to: Columns,
) {
    let bias = if t.last && !t.bias.is_null() {
        to.load(t.bias)
    } else {
        splat(0.0)
    };
    let quads = t.n.div_ceil(4);
    let held = E::hold();
    for _ in 0..groups {
        let part = t.part.add((i * quads + to.j / 4) * 16);
        let mut acc = [[splat(0.0); 4]; MR];
        if !t.first {
            for (r, row) in acc.iter_mut().enumerate() {
                for (c, x) in row.iter_mut().enumerate() {
                    *x = load(part.add(r * quads * 16 + c * 4));
                }
            }
        }
        let mut a = [t.a; MR];
        for (r, p) in a.iter_mut().enumerate() {
            *p = at(t.a, (i + r).wrapping_mul(t.lda), 4);
        }
        nt_tile::<E, MR, 4>(&mut acc, a, b, t.k, held);
        if t.last {
            for (r, row) in acc.iter().enumerate() {
                let c = at_mut(t.c, (i + r).wrapping_mul(t.ldc), 4);
                to.store(c, add(sum4(*row), bias));
            }
        } else {
            for (r, row) in acc.iter().enumerate() {
                for (c, x) in row.iter().enumerate() {
                    store(part.add(r * quads * 16 + c * 4), *x);
                }
            }
        }
        i += MR;
    }
}

#[inline(always)]
pub unsafe fn nt_tile<E: Element, const MR: usize, const NC: usize>(
    acc: &mut [[V; NC]; MR],
    a0: [*const f32; MR],
    b0: [*const u8; NC],
    k: usize,
    held: E::Held,
) {
    let whole = k & !3;
    let (mut a, mut b) = (a0, b0);
    // Registers: sums, two vectors of each column, a row and a constant.
    if E::PAIRS && NC * (MR + 2) + 2 < 15 && k >= 16 {
        let end = a0[0].add(k & !15);
        loop {
            nt_pair::<E, MR, NC>(acc, &a, &b, 0, held);
            if a[0].add(8) == end {
                break;
            }
            nt_pair::<E, MR, NC>(acc, &a, &b, 8, held);
            a = a.map(|p| p.add(16));
            b = b.map(|p| p.add(16 * E::BYTES));
            if a[0] == end {
                break;
            }
        }
    }
    let end = a0[0].add(whole);
    if a[0] != end {
        // A branch after each step, see the module comment.
        loop {
            nt_step::<E, MR, NC>(acc, &a, &b, 0, held);
            if a[0].add(4) == end {
                break;
            }
            nt_step::<E, MR, NC>(acc, &a, &b, 4, held);
            if a[0].add(8) == end {
                break;
            }
            nt_step::<E, MR, NC>(acc, &a, &b, 8, held);
            if a[0].add(12) == end {
                break;
            }
            nt_step::<E, MR, NC>(acc, &a, &b, 12, held);
            a = a.map(|p| p.add(16));
            b = b.map(|p| p.add(16 * E::BYTES));
            if a[0] == end {
                break;
            }
        }
    }
    if k > whole {
        let x = a0.map(|p| load_part(p.add(whole), k - whole));
        for (c, &p) in b0.iter().enumerate() {
            let y = E::load_tail(p.add(whole * E::BYTES), k - whole);
            for r in 0..MR {
                acc[r][c] = madd(x[r], y, acc[r][c]);
            }
        }
    }
}

/// Two steps, whose columns are loaded together.
#[inline(always)]
unsafe fn nt_pair<E: Element, const MR: usize, const NC: usize>(
    acc: &mut [[V; NC]; MR],
    a: &[*const f32; MR],
    b: &[*const u8; NC],
    i: usize,
    held: E::Held,
) {
    let y = b.map(|p| E::load8(p, i, held));
    for half in 0..2 {
        for r in 0..MR {
            let x = load(a[r].add(i + 4 * half));
            for c in 0..NC {
                acc[r][c] = madd(x, y[c][half], acc[r][c]);
            }
        }
    }
}

#[inline(always)]
unsafe fn nt_step<E: Element, const MR: usize, const NC: usize>(
    acc: &mut [[V; NC]; MR],
    a: &[*const f32; MR],
    b: &[*const u8; NC],
    i: usize,
    held: E::Held,
) {
    let x = a.map(|p| load(p.add(i)));
    for (c, &p) in b.iter().enumerate() {
        let y = E::load4(p, i, held);
        for r in 0..MR {
            acc[r][c] = madd(x[r], y, acc[r][c]);
        }
    }
}
