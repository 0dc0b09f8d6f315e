//! Few rows against a tile of keys or values that comes from memory: decoding.
//!
//! The bandwidth of memory decides here, so a tile is read once, by all rows together, and in an order that the
//! processor can fetch ahead: it follows one ascending stream a page, and rows of keys are shorter than a page.
//! So the halves or quarters of a tile are read side by side, each an ascending stream on pages of its own. Measured
//! in Deno 2.9 on a Xeon, over four neighbouring rows side by side and the column panels of outer.rs: from 0.65 to
//! 0.82 of the bandwidth with one row a key head, from 0.35 to 0.71 with four.
use crate::dot::nt_tile;
use crate::dtype::{at, at_mut, Element};
use crate::simd::*;

/// Rows of one tile: `n` of `width` elements, `stride` elements apart.
#[derive(Clone, Copy)]
pub struct Rows {
    pub base: *const u8,
    pub stride: usize,
    pub n: usize,
    pub width: usize,
}

impl Rows {
    /// Row j of every one of the S parts of the tile.
    #[inline(always)]
    fn parts<E: Element, const S: usize>(&self, j: usize) -> [*const u8; S] {
        let mut p = [self.base; S];
        for (c, p) in p.iter_mut().enumerate() {
            *p = at(
                self.base,
                (c * (self.n / S) + j).wrapping_mul(self.stride),
                E::BYTES,
            );
        }
        p
    }

    /// `scores (m, n) = a (m, width) · rowsᵀ`; n is a multiple of four.
    pub unsafe fn scores<E: Element>(
        &self,
        a: *const f32,
        lda: usize,
        m: usize,
        scores: *mut f32,
        ld: usize,
    ) {
        let (a, scores) = (|i: usize| at(a, i * lda, 4), |i: usize| at_mut(scores, i * ld, 4));
        // All rows of `a` meet a row of the tile before the next one is read. Two rows at a time leave registers for
        // four streams.
        if m <= 2 {
            for j in 0..self.n / 4 {
                match m {
                    1 => self.score::<E, 1, 4>(j, a(0), lda, scores(0), ld),
                    _ => self.score::<E, 2, 4>(j, a(0), lda, scores(0), ld),
                }
            }
            return;
        }
        for j in 0..self.n / 2 {
            let mut i = 0;
            while i + 4 <= m {
                self.score::<E, 4, 2>(j, a(i), lda, scores(i), ld);
                i += 4;
            }
            match m - i {
                3 => self.score::<E, 3, 2>(j, a(i), lda, scores(i), ld),
                2 => self.score::<E, 2, 2>(j, a(i), lda, scores(i), ld),
                1 => self.score::<E, 1, 2>(j, a(i), lda, scores(i), ld),
                _ => {}
            }
        }
    }

    #[inline(never)]
    unsafe fn score<E: Element, const MR: usize, const S: usize>(
        &self,
        j: usize,
        a: *const f32,
        lda: usize,
        scores: *mut f32,
        ld: usize,
    ) {
        let mut rows = [a; MR];
        for (r, p) in rows.iter_mut().enumerate() {
            *p = a.add(r * lda);
        }
        let mut acc = [[splat(0.0); S]; MR];
        nt_tile::<E, MR, S>(&mut acc, rows, self.parts::<E, S>(j), self.width, E::hold());
        let part = self.n / S;
        let to = scores.add(j);
        for c in 0..S {
            // A sum of four rows at a time; those beyond MR repeat the last one and are not stored.
            let v = sum4([0, 1, 2, 3].map(|r: usize| acc[r.min(MR - 1)][c]));
            let to = to.add(c * part);
            *to = extract::<0>(v);
            if MR > 1 {
                *to.add(ld) = extract::<1>(v);
            }
            if MR > 2 {
                *to.add(2 * ld) = extract::<2>(v);
            }
            if MR > 3 {
                *to.add(3 * ld) = extract::<3>(v);
            }
        }
    }

    /// `out (m, width) += weights (m, n) · rows`; n is a multiple of four, rows of `out` have room for whole vectors.
    pub unsafe fn weigh<E: Element>(
        &self,
        weights: *const f32,
        ldw: usize,
        m: usize,
        out: *mut f32,
        ld: usize,
    ) {
        let (w, out) = (
            |i: usize| at(weights, i * ldw, 4),
            |i: usize| at_mut(out, i * ld, 4),
        );
        for j in 0..self.n / 4 {
            let mut i = 0;
            while i + 4 <= m {
                self.mix::<E, 4>(j, w(i), ldw, out(i), ld);
                i += 4;
            }
            match m - i {
                3 => self.mix::<E, 3>(j, w(i), ldw, out(i), ld),
                2 => self.mix::<E, 2>(j, w(i), ldw, out(i), ld),
                1 => self.mix::<E, 1>(j, w(i), ldw, out(i), ld),
                _ => {}
            }
        }
    }

    #[inline(never)]
    unsafe fn mix<E: Element, const MR: usize>(
        &self,
        j: usize,
        weights: *const f32,
        ldw: usize,
        out0: *mut f32,
        ld: usize,
    ) {
        let part = self.n / 4;
        let held = E::hold();
        let whole = self.width & !3;
        let mut w = [splat(0.0); MR];
        for (r, x) in w.iter_mut().enumerate() {
            let p = weights.add(r * ldw + j);
            *x = vec4([*p, *p.add(part), *p.add(2 * part), *p.add(3 * part)]);
        }
        let mut b = self.parts::<E, 4>(j);
        let mut to = [out0; MR];
        for (r, p) in to.iter_mut().enumerate() {
            *p = out0.add(r * ld);
        }
        // Eight vectors of values leave no register for four rows of weights, where they need not be widened.
        let pairs = if E::PAIRS || MR < 4 { self.width & !7 } else { 0 };
        let end = out0.add(pairs);
        // Branches between the steps as in dot.rs.
        while to[0] != end {
            let y = b.map(|p| E::load8(p, 0, held));
            for (w, &to) in w.iter().zip(&to) {
                mix_pair(*w, &y, to);
            }
            b = b.map(|p| p.add(8 * E::BYTES));
            to = to.map(|p| p.add(8));
        }
        let end = out0.add(whole);
        while to[0] != end {
            mix_step::<E, MR>(&w, &b, &to, 0, held);
            if to[0].add(4) == end {
                to = to.map(|p| p.add(4));
                b = b.map(|p| p.add(4 * E::BYTES));
                break;
            }
            mix_step::<E, MR>(&w, &b, &to, 4, held);
            b = b.map(|p| p.add(8 * E::BYTES));
            to = to.map(|p| p.add(8));
        }
        let left = self.width - whole;
        if left > 0 {
            let y = b.map(|p| E::load_tail(p, left));
            for (w, to) in w.iter().zip(to) {
                store(to, mixed(*w, y, load(to)));
            }
        }
    }
}

#[inline(always)]
fn mixed(w: V, y: [V; 4], x: V) -> V {
    let x = madd(lane::<0>(w), y[0], x);
    let x = madd(lane::<1>(w), y[1], x);
    let x = madd(lane::<2>(w), y[2], x);
    madd(lane::<3>(w), y[3], x)
}

/// As [`mixed`], for two vectors of output, which share the lanes of `w`.
#[inline(always)]
unsafe fn mix_pair(w: V, y: &[[V; 2]; 4], to: *mut f32) {
    let mut x = [load(to), load(to.add(4))];
    for (y, w) in y
        .iter()
        .zip([lane::<0>(w), lane::<1>(w), lane::<2>(w), lane::<3>(w)])
    {
        x = [madd(w, y[0], x[0]), madd(w, y[1], x[1])];
    }
    store(to, x[0]);
    store(to.add(4), x[1]);
}

#[inline(always)]
unsafe fn mix_step<E: Element, const MR: usize>(
    w: &[V; MR],
    b: &[*const u8; 4],
    to: &[*mut f32; MR],
    i: usize,
    held: E::Held,
) {
    let y = b.map(|p| E::load4(p, i, held));
    for (w, to) in w.iter().zip(to) {
        let to = to.add(i);
        store(to, mixed(*w, y, load(to)));
    }
}
