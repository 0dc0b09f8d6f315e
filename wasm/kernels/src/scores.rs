//! What surrounds the two products of the tiled attention kernel, and the exponentials between them.
//!
//! How queries and keys are multiplied is [`Scores`]: floats here, small integers in flash3.rs.
use crate::columns::{Around, Floats, Multiply};
use crate::group::LANES;
use crate::math::Exp2Neg;
use crate::simd::*;
use crate::six;

/// How queries and keys are multiplied.
pub trait Scores {
    type By: Multiply;
    /// Words that hold D elements.
    fn words(d: usize) -> usize;
    /// Makes words (words, 8), in place, of the floats (D, 8) of scaled queries; returns where sums begin and what
    /// they are multiplied by.
    unsafe fn queries(q: *mut f32, d: usize) -> ([V; 2], [V; 2]);
    /// Makes words (words, n), in place, of the floats (D, n) of keys, rows `ld` apart, n a multiple of four;
    /// returns what scores are multiplied by.
    unsafe fn keys(k: *mut f32, ld: usize, n: usize, d: usize) -> f32;
    /// A finished sum as a score.
    fn end(sum: V, unit: V) -> V;
    /// Whether they are multiplied as floats and left alone.
    const PLAIN: bool = false;
}

/// Floats as they are.
impl Scores for Floats {
    type By = Floats;
    #[inline(always)]
    fn words(d: usize) -> usize {
        d
    }
    #[inline(always)]
    unsafe fn queries(_q: *mut f32, _d: usize) -> ([V; 2], [V; 2]) {
        ([splat(0.0); 2], [splat(1.0); 2])
    }
    #[inline(always)]
    unsafe fn keys(_k: *mut f32, _ld: usize, _n: usize, _d: usize) -> f32 {
        1.0
    }
    #[inline(always)]
    fn end(sum: V, _unit: V) -> V {
        sum
    }
    const PLAIN: bool = true;
}

/// Around the first product: beginnings and units of sums, their maxima, and between tiles exponentials of another
/// group.
pub struct Beside<'a, S: Scores> {
    pub begin: [V; 2],
    pub unit: [V; 2],
    /// Largest score of a query.
    pub best: [V; 2],
    pub weights: Option<&'a mut Weights>,
    pub of: core::marker::PhantomData<S>,
}

impl<S: Scores> Around for Beside<'_, S> {
    type By = S::By;
    #[inline(always)]
    fn begin(&self) -> [V; 2] {
        self.begin
    }
    #[inline(always)]
    unsafe fn end(&mut self, sums: [V; 2], c: *mut f32) {
        let scores = [0, 1].map(|x| S::end(sums[x], self.unit[x]));
        store(c, scores[0]);
        store(c.add(4), scores[1]);
        self.best = [0, 1].map(|x| pmax(self.best[x], scores[x]));
    }
    #[inline(always)]
    unsafe fn between(&mut self) {
        if let Some(weights) = &mut self.weights {
            weights.some();
        }
    }
    const SIX: bool = S::PLAIN && six::PRESENT;
    unsafe fn six(&mut self, a: *const f32, next_a: usize, b: *const f32, end: *const f32, c: *mut f32) {
        six::six_rows(a, next_a, b, end, c, self.best.as_mut_ptr() as *mut f32);
    }
}

/// Around the second product: earlier output is scaled by `by`, if by anything, and the sum of a tile added to it. Were it
/// where that sum begins, each product would be rounded at the size of all that came before.
pub struct Onto {
    pub by: Option<[V; 2]>,
}

impl Around for Onto {
    type By = Floats;
    #[inline(always)]
    fn begin(&self) -> [V; 2] {
        [splat(0.0); 2]
    }
    #[inline(always)]
    unsafe fn end(&mut self, sums: [V; 2], c: *mut f32) {
        for (x, sum) in sums.into_iter().enumerate() {
            let c = c.add(4 * x);
            let onto = match self.by {
                Some(by) => madd(load(c), by[x], sum),
                None => add(load(c), sum),
            };
            store(c, onto);
        }
    }
    #[inline(always)]
    unsafe fn between(&mut self) {}
    const SIX: bool = six::PRESENT;
    unsafe fn six(&mut self, a: *const f32, next_a: usize, b: *const f32, end: *const f32, c: *mut f32) {
        let by = self.by.unwrap_or([splat(1.0); 2]);
        six::six_onto(a, next_a, b, end, c, by.as_ptr() as *const f32);
    }
}

/// Scores (len, 8) that become weights `2^(s − base)`, in place and a few at a time.
pub struct Weights {
    pub scores: *mut f32,
    at: *mut f32,
    left: usize,
    base: [V; 2],
    pub total: [V; 2],
}

impl Weights {
    pub fn new(scores: *mut f32, len: usize, base: [V; 2]) -> Self {
        Weights {
            scores,
            at: scores,
            left: len,
            base,
            total: [splat(0.0); 2],
        }
    }

    /// As many keys as a tile of the product has rows at most, if they are left.
    #[inline(always)]
    pub unsafe fn some(&mut self) {
        if self.left != 0 {
            self.advance(self.left.min(6));
        }
    }

    /// All that is left.
    #[inline(always)]
    pub unsafe fn rest(&mut self) {
        self.advance(self.left);
    }

    #[inline(never)]
    unsafe fn advance(&mut self, keys: usize) {
        let exp2 = Exp2Neg::new();
        let (base, mut total, mut s) = (self.base, self.total, self.at);
        let end = s.add(keys * LANES);
        while s != end {
            let e = [
                exp2.of(sub(load(s), base[0])),
                exp2.of(sub(load(s.add(4)), base[1])),
            ];
            store(s, e[0]);
            store(s.add(4), e[1]);
            total = [add(total[0], e[0]), add(total[1], e[1])];
            s = s.add(LANES);
        }
        (self.total, self.at) = (total, s);
        self.left -= keys;
    }
}
