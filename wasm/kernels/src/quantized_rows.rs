//! Rows of activations as integers, for products with quantised weights.
//!
//! Rows that a tile takes together lie together: blocks of four, then what is left as a block of one, of two, or of four
//! with a row of zeros. Of each 32 columns a block holds a scale (f32) a row, a correction (i32) a row, and the values:
//! four columns of each row in turn, so that a step of the tile finds the words of its rows side by side.
use crate::dtype::{at, at_mut};
use crate::quantized_layout::*;
use crate::quantized_simd::*;
use crate::simd::*;

/// Whether values are bytes, for the relaxed products, or have 16 bits.
const BYTES: bool = cfg!(target_feature = "relaxed-simd");

/// Bytes of four columns of a row.
const WORD: usize = if BYTES { 4 } else { 8 };

/// Bytes of 32 columns of a row.
const X_GROUP: usize = 8 + GROUP / 4 * WORD;

/// A block of rows.
#[derive(Clone, Copy)]
pub struct RowBlock {
    /// Its first row.
    pub row: usize,
    /// Rows it has room for: 1, 2 or 4.
    pub rows: usize,
    /// Columns / 32 of a row.
    pub groups: usize,
}

impl RowBlock {
    /// The block that holds `row` of `m`.
    #[inline(always)]
    pub fn of(row: usize, m: usize, groups: usize) -> Self {
        let row = row & !3;
        let rows = match m - row {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        RowBlock { row, rows, groups }
    }

    /// Where it begins in the room of all.
    #[inline(always)]
    pub fn start(self, room: *const u8) -> *const u8 {
        at(room, self.row.wrapping_mul(self.groups), X_GROUP)
    }
}

/// Where the values of 32 columns of `rows` rows begin.
#[inline(always)]
pub const fn values_of(rows: usize) -> usize {
    8 * rows
}

/// Bytes of 32 columns of `rows` rows.
#[inline(always)]
pub const fn group_bytes(rows: usize) -> usize {
    X_GROUP * rows
}

#[repr(C)]
pub struct QuantizeRows {
    /// (M, I) f32, rows `ldx` apart.
    x: *const f32,
    ldx: u32,
    /// Blocks of rows, as above.
    out: *mut u8,
    m: u32,
    i: u32,
    format: u32,
    /// Rows of one part.
    rows: u32,
}

/// Quantises rows of x.
#[no_mangle]
pub unsafe extern "C" fn quantize_rows(params: *const QuantizeRows, _: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let groups = (p.i as usize).div_ceil(GROUP);
    let first = (begin * p.rows) as usize;
    let m = p.m as usize;
    for row in first..((end * p.rows) as usize).min(m) {
        let block = RowBlock::of(row, m, groups);
        let x = at(p.x, row.wrapping_mul(p.ldx as usize), 4);
        let start = block.start(p.out) as *mut u8;
        for g in 0..groups {
            let to = Place {
                group: at_mut(start, g, group_bytes(block.rows)),
                rows: block.rows,
                row: row - block.row,
            };
            let n = (p.i as usize - g * GROUP).min(GROUP);
            quantize_group(x.wrapping_add(g * GROUP), n, p.format, to);
            if row + 1 == m && block.rows == 4 && to.row == 2 {
                Place { row: 3, ..to }.write(0.0, 0, [splati(0); 8]);
            }
        }
    }
}

/// 32 columns of a row of a block.
#[derive(Clone, Copy)]
struct Place {
    group: *mut u8,
    rows: usize,
    row: usize,
}

impl Place {
    /// Values are integers of a byte's range.
    #[inline(always)]
    unsafe fn write(&self, scale: f32, correction: i32, values: [V; 8]) {
        let word = |i: usize| (self.group as *mut u32).add(i);
        word(self.row).write_unaligned(scale.to_bits());
        word(self.rows + self.row).write_unaligned(correction as u32);
        let to = |step: usize| word(2 * self.rows + (step * self.rows + self.row) * (WORD / 4));
        for q in 0..2 {
            let halves = [0, 2].map(|i| narrow16(values[4 * q + i], values[4 * q + i + 1]));
            if BYTES {
                let bytes = ints(narrow8(halves[0], halves[1]));
                for (i, four) in bytes.into_iter().enumerate() {
                    to(4 * q + i).write_unaligned(four as u32);
                }
                continue;
            }
            for (i, half) in halves.into_iter().enumerate() {
                let [a, b, c, d] = ints(half).map(|pair| pair as u32);
                for (step, pairs) in [(0, [a, b]), (1, [c, d])] {
                    let to = to(4 * q + 2 * i + step);
                    to.write_unaligned(pairs[0]);
                    to.add(1).write_unaligned(pairs[1]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn quantize_group(x: *const f32, n: usize, format: u32, to: Place) {
    let mut v = [splat(0.0); 8];
    if n == GROUP {
        for (i, v) in v.iter_mut().enumerate() {
            *v = load(x.add(i * 4));
        }
    } else {
        for i in 0..n.div_ceil(4) {
            v[i] = load_up_to_4(x.add(i * 4), n - i * 4);
        }
    }
    // Magnitudes as integers: in their order, and NaN is the largest.
    let mut most = splati(0);
    for v in v {
        most = maxi(most, abs(v));
    }
    let most = maxi(most, high_halves(most, most));
    let most = extract::<0>(maxi(most, lane::<1>(most)));
    let limit = if format == INT4_G32 { 127.0 } else { 63.0 };
    let offset = if format == INT4_G32 || !BYTES { 0 } else { 64 };
    if !most.is_finite() {
        return to.write(most / limit, 0, [splati(offset); 8]);
    }
    // A quotient beyond float32 is one of numbers that add nothing.
    let inverse = if most > 1e-36 { limit / most } else { 0.0 };
    // Adding it leaves the nearest integer, even on ties, in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let (inverse, magic) = (splat(inverse), splat(MAGIC));
    let v = v.map(|v| subi(add(mul(v, inverse), magic), splati(MAGIC.to_bits() as i32)));
    let mut sum = splati(0);
    for q in v {
        sum = addi(sum, q);
    }
    let [a, b, c, d] = ints(sum);
    let correction = -8 * (a + b + c + d);
    to.write(most / limit, correction, v.map(|q| addi(q, splati(offset))));
}
