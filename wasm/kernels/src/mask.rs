//! Which keys a query sees: causality, window and length as a range, then padding and dense masks; for blocks see
//! blocks.rs.
use crate::attention::{fill, Attention};
use crate::dtype::at;
use crate::simd::*;

/// Keys `lo..hi` that a row may see by causality, window and length; padding and dense masks come on top.
#[derive(Clone, Copy)]
pub struct Range {
    pub lo: i32,
    pub hi: i32,
}

impl Attention {
    /// Whether more than the row's [`Range`] decides what is visible.
    pub fn has_mask(&self) -> bool {
        self.mask_kind != 0 || !self.padding.is_null()
    }

    pub unsafe fn range(&self, b: usize, i: usize) -> Range {
        let position = i as i32 + self.offset;
        let n = self.k_len as i32;
        if self.zero_padded_queries != 0 && !self.padding.is_null() && position >= 0 && position < n {
            let own = at(
                self.padding,
                b.wrapping_mul(self.padding_stride as usize) + position as usize,
                1,
            );
            if *own == 0 {
                return Range { lo: 0, hi: 0 };
            }
        }
        let lo = (position.saturating_sub(self.left)).clamp(0, n);
        let hi = (position.saturating_add(self.right)).clamp(-1, n - 1) + 1;
        Range { lo, hi: hi.max(lo) }
    }

    /// Start of the dense mask's row for a query.
    pub fn mask_row(&self, b: usize, h: usize, i: usize) -> *const u8 {
        let s = &self.mask_strides;
        let n = b
            .wrapping_mul(s[0] as usize)
            .wrapping_add(h.wrapping_mul(s[1] as usize))
            .wrapping_add(i.wrapping_mul(s[2] as usize));
        at(self.mask, n, if self.mask_kind == 2 { 4 } else { 1 })
    }

    /// What the dense mask adds to the score of key j: −∞ where it hides it.
    #[inline(always)]
    pub unsafe fn bias(&self, mask_row: *const u8, j: usize) -> f32 {
        let step = j.wrapping_mul(self.mask_strides[3] as usize);
        if self.mask_kind == 1 {
            return if *at(mask_row, step, 1) != 0 {
                0.0
            } else {
                f32::NEG_INFINITY
            };
        }
        let x = *at(mask_row as *const f32, step, 4);
        if x <= f32::MIN / 2.0 {
            f32::NEG_INFINITY
        } else {
            x
        }
    }

    pub unsafe fn is_padding(&self, b: usize, j: usize) -> bool {
        !self.padding.is_null() && *at(self.padding, b.wrapping_mul(self.padding_stride as usize) + j, 1) == 0
    }

    /// Hides keys `k0..k0+n` from one row: `scores` holds one score per key.
    pub unsafe fn mask_scores(
        &self,
        range: Range,
        b: usize,
        h: usize,
        i: usize,
        k0: usize,
        n: usize,
        scores: *mut f32,
    ) {
        let lo = (range.lo as usize).clamp(k0, k0 + n) - k0;
        let hi = (range.hi as usize).clamp(k0 + lo, k0 + n) - k0;
        fill(scores, lo, f32::NEG_INFINITY);
        fill(scores.add(hi), n - hi, f32::NEG_INFINITY);
        if self.mask_kind != 0 {
            let row = self.mask_row(b, h, i);
            for j in lo..hi {
                *scores.add(j) += self.bias(row, k0 + j);
            }
        }
        if !self.padding.is_null() {
            for j in lo..hi {
                if self.is_padding(b, k0 + j) {
                    *scores.add(j) = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Hides keys `first..first+len` from eight queries, the first `rows` of them real: `scores` holds eight scores
    /// per key. `lo ≤ key < hi` are the ranges of the queries, a bit of `seen` for each key is what their blocks show;
    /// keys from the `n`-th on are padding.
    #[inline(never)]
    pub unsafe fn mask_tile(
        &self,
        [lo, hi]: [[V; 2]; 2],
        seen: &[u64; 8],
        b: usize,
        h: usize,
        i: usize,
        rows: usize,
        first: usize,
        n: usize,
        len: usize,
        scores: *mut f32,
    ) {
        let none = splat(f32::NEG_INFINITY);
        let mut mask_rows = [core::ptr::null(); 8];
        if self.mask_kind != 0 {
            for (lane, row) in mask_rows.iter_mut().enumerate() {
                *row = self.mask_row(b, h, i + lane.min(rows - 1));
            }
        }
        let word = |half: usize, shift: u32| {
            let s = &seen[4 * half..4 * half + 4];
            let part = |c: usize| (s[c] >> shift) as i32;
            vec4i([part(0), part(1), part(2), part(3)])
        };
        let mut words = [word(0, 0), word(1, 0)];
        let mut bit = splati(1);
        for j in 0..len {
            let s = scores.add(j * 8);
            if j == 32 {
                (words, bit) = ([word(0, 32), word(1, 32)], splati(1));
            }
            let own = bit;
            bit = shl::<1>(bit);
            if j >= n || self.is_padding(b, first + j) {
                store(s, none);
                store(s.add(4), none);
                continue;
            }
            let key = splati((first + j) as i32);
            for half in 0..2 {
                let mut x = load(s.add(4 * half));
                if self.mask_kind != 0 {
                    let r = &mask_rows[4 * half..4 * half + 4];
                    let bias = |c: usize| self.bias(r[c], first + j);
                    x = add(x, vec4([bias(0), bias(1), bias(2), bias(3)]));
                }
                let inside = andnot(gti(hi[half], key), gti(lo[half], key));
                let shown = eqi(and(words[half], own), own);
                store(s.add(4 * half), select(and(inside, shown), x, none));
            }
        }
    }
}
