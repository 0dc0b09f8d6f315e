//! How quantised weights (O, I) lie in memory, on every device: blocks of 4 rows by 32 columns, each a record of its own.
//!
//! A 32-bit word holds four neighbouring weights of one row, four words of the four rows follow each other. One vector of
//! four lanes thus computes four outputs, scales and sums are vectors as well, and nothing is ever added across lanes.
//! Rows and columns beyond the weight's are zeros.
//!
//! | format     | record                                                     | bytes | behind the records, f32 a row |
//! | ---------- | ---------------------------------------------------------- | ----- | ----------------------------- |
//! | int8       | 4 sums (i16), 8 × 4 rows × 4 weights (i8)                  | 136   | scale                         |
//! | int8_g32   | 4 scales (f16), 4 sums (i16), 8 × 4 rows × 4 weights (i8)  | 144   | 0, or NaN                     |
//! | int4_g32   | 4 scales (f16), 4 × 4 rows × 4 bytes of two weights + 8    | 72    | 0, or NaN                     |
//!
//! NaN is for rows with a scale that is not finite: it is added to what the row gives, so that a product need not look
//! for such scales where it widens them.
//!
//! The lower half of a byte is a weight of the first four columns of eight, the upper one of the last four.
use crate::dtype::{to_half, Element, Half};

pub const GROUP: usize = 32;
pub const INT8: u32 = 0;
pub const INT8_G32: u32 = 1;
pub const INT4_G32: u32 = 2;

/// Bytes of a record.
#[inline(always)]
pub fn record_bytes(format: u32) -> usize {
    match format {
        INT8 => 136,
        INT8_G32 => 144,
        _ => 72,
    }
}

/// Where the weights of a record begin; the sums lie in the eight bytes before.
#[inline(always)]
pub fn values_at(format: u32) -> usize {
    if format == INT8_G32 {
        16
    } else {
        8
    }
}

/// The nearest integer, even on ties, of |x| < 2²²: larger sums have no fraction.
#[inline(always)]
pub fn nearest(x: f32) -> f32 {
    (x + 12_582_912.0) - 12_582_912.0
}

/// 32 weights of one row: −127…127, or −8…7.
pub type Group = [i8; GROUP];

/// Writes row `c` of 4 of a record.
pub unsafe fn write_group(record: *mut u8, format: u32, c: usize, q: &Group, scale: f32) {
    let values = record.add(values_at(format));
    if format != INT8 {
        (record as *mut u16).add(c).write_unaligned(to_half(scale));
    }
    if format == INT4_G32 {
        for (i, pair) in q.chunks_exact(8).enumerate() {
            for t in 0..4 {
                let byte = (pair[t] + 8) as u8 | ((pair[4 + t] + 8) as u8) << 4;
                *values.add(i * 16 + c * 4 + t) = byte;
            }
        }
        return;
    }
    let mut sum = 0i16;
    for (i, four) in q.chunks_exact(4).enumerate() {
        for (t, &x) in four.iter().enumerate() {
            sum += x as i16;
            *values.add(i * 16 + c * 4 + t) = x as u8;
        }
    }
    (values.sub(8) as *mut i16).add(c).write_unaligned(sum);
}

/// Row `c` of 4 of a record, and its scale (1 where the record has none).
pub unsafe fn read_group(record: *const u8, format: u32, c: usize) -> (Group, f32) {
    let values = record.add(values_at(format));
    let mut q = [0; GROUP];
    let scale = if format == INT8 {
        1.0
    } else {
        Half::load1(record, c)
    };
    for (i, x) in q.iter_mut().enumerate() {
        *x = if format == INT4_G32 {
            let byte = *values.add(i / 8 * 16 + c * 4 + i % 4);
            (byte >> (i % 8 / 4 * 4) & 15) as i8 - 8
        } else {
            *values.add(i / 4 * 16 + c * 4 + i % 4) as i8
        };
    }
    (q, scale)
}
