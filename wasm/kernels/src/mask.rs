//! Which keys a query sees: causality, window and length as a range, then padding and dense masks; for blocks see
//! blocks.rs. The tiled kernels meet all of them as bits, 64 keys in a word, so that a dense mask, too, is evaluated
//! only where it hides a part of a tile; a mask of numbers is added only where it holds one that is not 0.
use crate::attention::{fill, Attention};
use crate::blocks::{hide, low};
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

    #[inline(never)]
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

    /// The keys `first..first+n` (at most 64) that are real, a bit each.
    pub unsafe fn padding_bits(&self, b: usize, first: usize, n: usize) -> u64 {
        if self.padding.is_null() {
            return low(n);
        }
        let row = at(
            self.padding,
            b.wrapping_mul(self.padding_stride as usize) + first,
            1,
        );
        byte_bits(row, n)
    }

    /// Whether the dense mask is rows of bytes.
    pub fn mask_of_bytes(&self) -> bool {
        self.mask_kind == 1 && self.mask_strides[3] == 1
    }

    /// The keys `first..first+n` (at most 64) that a row of the dense mask shows, a bit each, and whether it adds
    /// anything but 0 to the score of one of them.
    #[inline(never)]
    pub unsafe fn mask_bits(&self, mask_row: *const u8, first: usize, n: usize) -> (u64, bool) {
        let contiguous = self.mask_strides[3] == 1;
        if self.mask_of_bytes() {
            return (byte_bits(at(mask_row, first, 1), n), false);
        }
        let (mut shown, mut biased) = (0, false);
        let mut j = 0;
        if self.mask_kind == 2 && contiguous {
            let row = at(mask_row as *const f32, first, 4);
            let mut added = splati(0);
            while j + 4 <= n {
                let x = load(row.add(j));
                let hidden = lt(x, splat(ABOVE_HIDDEN));
                shown |= u64::from(!bits(hidden) & 15) << j;
                added = or(added, andnot(ne(x, splat(0.0)), hidden));
                j += 4;
            }
            biased = any(added);
        }
        while j < n {
            let x = self.bias(mask_row, first + j);
            if x != f32::NEG_INFINITY {
                shown |= 1 << j;
                biased |= x != 0.0;
            }
            j += 1;
        }
        (shown, biased)
    }

    /// Hides keys `k0..k0+n` from one row: `scores` holds one score per key.
    #[inline(never)]
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
        if !self.has_mask() {
            return;
        }
        let mut j = lo;
        while j < hi {
            let part = (hi - j).min(64);
            let mut seen = self.padding_bits(b, k0 + j, part);
            if self.mask_kind != 0 {
                let row = self.mask_row(b, h, i);
                let (shown, biased) = self.mask_bits(row, k0 + j, part);
                seen &= shown;
                if biased {
                    self.add_bias(row, k0 + j, part, scores.add(j));
                }
            }
            hide(seen, part, scores.add(j));
            j += part;
        }
    }

    /// Adds a row of the dense mask to scores.
    #[inline(never)]
    unsafe fn add_bias(&self, mask_row: *const u8, first: usize, n: usize, scores: *mut f32) {
        let mut j = 0;
        if self.mask_strides[3] == 1 {
            let row = at(mask_row as *const f32, first, 4);
            while j + 4 <= n {
                store(scores.add(j), add(load(scores.add(j)), load(row.add(j))));
                j += 4;
            }
        }
        while j < n {
            *scores.add(j) += self.bias(mask_row, first + j);
            j += 1;
        }
    }
}

/// The smallest number that does not hide a key: above half of the least one.
const ABOVE_HIDDEN: f32 = f32::from_bits((f32::MIN / 2.0).to_bits() - 1);

/// From the first to the last key of a range that a row of bytes shows, and whether it shows all between them: it does
/// in every row of a causal mask, of a window and of packed sequences, whose tiles then need no bits.
#[inline(never)]
pub unsafe fn shown(row: *const u8, range: Range) -> (Range, bool) {
    let (mut lo, mut hi, mut count) = (range.hi, range.lo, 0);
    let mut j = range.lo;
    while j < range.hi {
        let bits = byte_bits(row.add(j as usize), (range.hi - j).min(64) as usize);
        if bits != 0 {
            lo = lo.min(j + bits.trailing_zeros() as i32);
            hi = j + 64 - bits.leading_zeros() as i32;
            count += bits.count_ones() as i32;
        }
        j += 64;
    }
    // A row that shows nothing has an empty range.
    (Range { lo: lo.min(hi), hi }, count == (hi - lo).max(0))
}

/// The bytes of n (at most 64) that are not 0, a bit each.
#[inline(never)]
unsafe fn byte_bits(p: *const u8, n: usize) -> u64 {
    let (mut bits, mut j) = (0, 0);
    while j + 16 <= n {
        bits |= u64::from(load_bits16(p.add(j))) << j;
        j += 16;
    }
    while j < n {
        bits |= u64::from(*p.add(j) != 0) << j;
        j += 1;
    }
    bits
}

/// Adds the dense mask, times `unit`, to the scores (n, 8) of eight queries: `rows` are their rows of the mask.
#[inline(never)]
pub unsafe fn add_bias(
    p: &Attention,
    rows: &[*const u8; 8],
    first: usize,
    n: usize,
    unit: f32,
    scores: *mut f32,
) {
    let by = splat(unit);
    let mut j = 0;
    if p.mask_strides[3] == 1 {
        while j + 4 <= n {
            for half in 0..2 {
                let row = |r: usize| load(at(rows[4 * half + r] as *const f32, first + j, 4));
                for (x, v) in transpose4([row(0), row(1), row(2), row(3)])
                    .into_iter()
                    .enumerate()
                {
                    let s = scores.add((j + x) * 8 + 4 * half);
                    store(s, madd(v, by, load(s)));
                }
            }
            j += 4;
        }
    }
    while j < n {
        for half in 0..2 {
            let bias = |c: usize| p.bias(rows[4 * half + c], first + j);
            let s = scores.add(j * 8 + 4 * half);
            store(s, madd(vec4([bias(0), bias(1), bias(2), bias(3)]), by, load(s)));
        }
        j += 1;
    }
}

/// Hides from the scores (len, 8) of eight queries those whose bit is not set.
#[inline(never)]
pub unsafe fn hide_tile(shown: &[u64; 8], len: usize, scores: *mut f32) {
    let none = splat(f32::NEG_INFINITY);
    let word = |half: usize, shift: u32| {
        let s = &shown[4 * half..4 * half + 4];
        let part = |c: usize| (s[c] >> shift) as i32;
        vec4i([part(0), part(1), part(2), part(3)])
    };
    for begin in (0..len).step_by(32) {
        let words = [word(0, begin as u32), word(1, begin as u32)];
        let mut bit = splati(1);
        for j in begin..len.min(begin + 32) {
            for (half, word) in words.into_iter().enumerate() {
                let s = scores.add(j * 8 + 4 * half);
                store(s, select(eqi(and(word, bit), bit), load(s), none));
            }
            bit = shl::<1>(bit);
        }
    }
}
