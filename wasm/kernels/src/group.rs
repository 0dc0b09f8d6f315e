//! Eight queries on their way through the keys: what they see, their maxima, sums and output.
//!
//! The algorithm is in flash.rs. Lanes are queries; scores and output are kept transposed.
use crate::attention::{fill, Attention};
use crate::blocks::{low, Walk};
use crate::columns::column_maxima;
use crate::mask::{add_bias, hide_tile, shown, Range};
use crate::math::{log, Exp2Neg, LN_2, LOG2_E};
use crate::simd::*;
use crate::softmax::scale;
use crate::tile::{up4, TILE};

/// Queries of a group: two vectors.
pub const LANES: usize = 8;

/// What a group sees of a tile.
pub struct Span {
    /// First key of the tile, keys, and keys with padding.
    pub from: usize,
    pub keys: usize,
    pub len: usize,
    /// Bits of the keys from `from` on, by lane.
    pub shown: [u64; LANES],
    /// Whether every lane sees all `len` keys.
    pub whole: bool,
}

/// What is kept for a group of queries between tiles.
pub struct Group {
    pub h: usize,
    /// First query row, and how many are real.
    pub i: usize,
    pub rows: usize,
    /// Keys visible by position and by a dense mask of bytes: a lane sees some of its own range, any lane some of
    /// `any`, all lanes some of `all`.
    ranges: [Range; LANES],
    pub any: Range,
    pub all: Range,
    /// Whether a dense mask decides more than the ranges.
    masked: bool,
    /// Keys of the present tile that a lane sees, a bit each, and whether a mask adds to their scores.
    seen: [u64; LANES],
    biased: bool,
    /// Reference (base 2) and sum of the weights per lane.
    pub m: [V; 2],
    pub l: [V; 2],
    /// Queries as columns (words, 8), where their sums begin and their unit; output (Dv, 8).
    pub q: *mut f32,
    pub begin: [V; 2],
    pub unit: [V; 2],
    pub o: *mut f32,
}

impl Group {
    #[inline(never)]
    pub unsafe fn new(p: &Attention, b: usize, h: usize, i: usize, rows: usize, room: *mut f32) -> Self {
        let (d, wide, wide_v) = (p.d as usize, up4(p.d as usize), up4(p.dv as usize));
        // A hook works on scores in natural units.
        let scaling = if p.hook != 0 {
            p.scaling
        } else {
            p.scaling * LOG2_E
        };
        let (q, o) = (room, room.add(wide * LANES));
        fill(o, wide_v * LANES, 0.0);
        let (mut any, mut all) = (Range { lo: i32::MAX, hi: 0 }, Range { lo: 0, hi: i32::MAX });
        let (mut queries, mut ranges) = ([core::ptr::null(); LANES], [any; LANES]);
        let mut masked = p.mask_kind != 0 && !p.mask_of_bytes();
        for (lane, from) in queries.iter_mut().enumerate() {
            // Lanes without a query repeat the last one, so that they need no mask of their own.
            let own = i + lane.min(rows - 1);
            *from = p.query(b, h, own);
            let mut range = p.range(b, own);
            if p.mask_of_bytes() {
                let (shown, whole) = shown(p.mask_row(b, h, own), range);
                range = shown;
                masked |= !whole;
            }
            ranges[lane] = range;
            all = Range {
                lo: all.lo.max(range.lo),
                hi: all.hi.min(range.hi),
            };
            if range.lo < range.hi {
                any = Range {
                    lo: any.lo.min(range.lo),
                    hi: any.hi.max(range.hi),
                };
            }
        }
        for half in 0..2 {
            for c in (0..d).step_by(4) {
                let row = |r: usize| mul(load_up_to_4(queries[4 * half + r].add(c), d - c), splat(scaling));
                for (r, v) in transpose4([row(0), row(1), row(2), row(3)])
                    .into_iter()
                    .enumerate()
                {
                    store(q.add((c + r) * LANES + 4 * half), v);
                }
            }
        }
        let sink = p.sink(h);
        Group {
            h,
            i,
            rows,
            ranges,
            any,
            all,
            masked,
            seen: [0; LANES],
            biased: false,
            m: [splat(sink * LOG2_E); 2],
            l: [splat((sink > f32::NEG_INFINITY) as u32 as f32); 2],
            q,
            begin: [splat(0.0); 2],
            unit: [splat(1.0); 2],
            o,
        }
    }

    /// Finds what the lanes see of the keys `k0..k0+n`, of which `real` are no padding; `first` is the walk's row
    /// of lane 0.
    #[inline(never)]
    pub unsafe fn look(
        &mut self,
        p: &Attention,
        walk: &mut Walk,
        first: usize,
        b: usize,
        k0: usize,
        n: usize,
        real: u64,
    ) {
        let (lo, hi) = (k0 as i32, (k0 + n) as i32);
        self.biased = false;
        if self.any.lo >= hi || self.any.hi <= lo {
            self.seen = [0; LANES];
            return;
        }
        let inside = self.all.lo <= lo && self.all.hi >= hi;
        for lane in 0..LANES {
            let mut seen = walk.seen(first + lane, k0, n) & real;
            if !inside {
                let range = self.ranges[lane];
                seen &= low((range.hi - lo).max(0) as usize) & !low((range.lo - lo).max(0) as usize);
            }
            if self.masked && seen != 0 {
                let row = self.i + lane.min(self.rows - 1);
                let (shown, biased) = p.mask_bits(p.mask_row(b, self.h, row), k0, n);
                seen &= shown;
                self.biased |= biased;
            }
            self.seen[lane] = seen;
        }
    }

    pub fn any_seen(&self) -> u64 {
        self.seen.iter().fold(0, |a, w| a | w)
    }

    /// The keys of a tile of n that any lane sees, in steps of four; none where there are no such.
    #[inline(never)]
    pub fn span(&self, n: usize) -> Option<Span> {
        let any = self.any_seen() & low(n);
        if any == 0 {
            return None;
        }
        let from = any.trailing_zeros() as usize / 4 * 4;
        let to = 64 - any.leading_zeros() as usize;
        let len = up4(to - from);
        let shown = self.seen.map(|w| w >> from);
        Some(Span {
            from,
            keys: to - from,
            len,
            shown,
            whole: shown.iter().fold(!0, |a, w| a & w) & low(len) == low(len),
        })
    }

    /// What happens to scores before they become weights; returns their maxima.
    #[inline(never)]
    pub unsafe fn mask(
        &self,
        p: &Attention,
        b: usize,
        first: usize,
        span: &Span,
        scores: *mut f32,
        turned: *mut f32,
        m: [V; 2],
    ) -> [V; 2] {
        if p.hook == 0 && !self.biased && span.whole {
            return m;
        }
        let len = span.len;
        if p.hook != 0 {
            p.call_hook_transposed(
                scores,
                turned,
                TILE,
                [b, self.h, self.i, first],
                self.rows,
                span.keys,
            );
            scale(scores, len * LANES, LOG2_E);
        }
        if self.biased {
            let mut rows = [core::ptr::null(); LANES];
            for (lane, row) in rows.iter_mut().enumerate() {
                *row = p.mask_row(b, self.h, self.i + lane.min(self.rows - 1));
            }
            add_bias(p, &rows, first, span.keys, LOG2_E, scores);
        }
        if !span.whole {
            hide_tile(&span.shown, len, scores);
        }
        column_maxima(scores, len, self.m)
    }

    /// Moves the references towards the maxima m; returns what is subtracted from scores (no infinity) and what
    /// earlier output is scaled by, if by anything.
    #[inline(never)]
    pub unsafe fn raise(&mut self, m: [V; 2], slack: f32) -> ([V; 2], Option<[V; 2]>) {
        let none = splat(f32::NEG_INFINITY);
        let mut new = m;
        let mut grown = true;
        if slack >= 0.0 {
            let over = [0, 1].map(|x| gt(m[x], add(self.m[x], splat(slack))));
            new = [0, 1].map(|x| select(over[x], m[x], self.m[x]));
            grown = any(or(over[0], over[1]));
        }
        // With −∞ every difference would be NaN.
        let base = new.map(|m| select(eq(m, none), splat(0.0), m));
        if !grown {
            return (base, None);
        }
        let exp2 = Exp2Neg::new();
        let alpha = [0, 1].map(|x| exp2.of(sub(self.m[x], base[x])));
        self.m = new;
        (base, Some(alpha))
    }

    #[inline(never)]
    pub unsafe fn finish(&self, p: &Attention, b: usize) {
        let mut lse = [0.0; LANES];
        let dv = p.dv as usize;
        for half in 0..2 {
            let (m, l) = (self.m[half], self.l[half]);
            let empty = eq(l, splat(0.0));
            let inverse = andnot(div(splat(1.0), l), empty);
            let sum = add(mul(m, splat(LN_2)), log(l));
            store(
                lse.as_mut_ptr().add(4 * half),
                select(empty, splat(f32::NEG_INFINITY), sum),
            );
            for c in (0..dv).step_by(4) {
                let column = |x: usize| mul(load(self.o.add((c + x) * LANES + 4 * half)), inverse);
                let turned = transpose4([column(0), column(1), column(2), column(3)]);
                for (lane, v) in turned
                    .into_iter()
                    .enumerate()
                    .take(self.rows.saturating_sub(4 * half))
                {
                    store_up_to_4(p.out_row(b, self.h, self.i + 4 * half + lane).add(c), v, dv - c);
                }
            }
        }
        if !p.lse.is_null() {
            core::ptr::copy_nonoverlapping(lse.as_ptr(), p.lse.add(p.row(b, self.h, self.i)), self.rows);
        }
    }
}
