//! `out (M, O) = x (M, I) · weight (O, I)ᵀ + bias (O)` with weights in 8 or 4 bits (quantized_layout.rs).
//!
//! Over widening weights to floats: rows of x become integers as well, a scale for 32 of them, and products are summed
//! as integers, exactly, so that no order of summation and no build changes them; only the 32-column sums meet in
//! float32. With int8 weights x has 7 bits, −63…63: then x + 64 is what relaxed dot products take as their second operand
//! on every processor, and what the 64 adds is known (the sums of a record). With int4 weights the weights are that
//! operand, x has 8 bits, and what the 8 adds is a sum over x.
//!
//! Ladder: lanes are outputs, so that a tile ends without sums across lanes, and scales cost one multiply-add for 128
//! products. A tile is eight sums: four rows of x, which lie side by side (quantized_rows.rs), by two times four
//! columns, or one row by eight times four, as many streams of weights as keep the memory busy. Its steps stand between
//! branches (quantized_products.rs). What limits it on Zen 3 is the number of vector instructions, three a cycle. Measured
//! in Deno 2.9 on Zen 3, over the tiles of 4×2 and 1×4 in a loop of steps before, whose rows of x lay apart, in parts of
//! the multiply-add peak: 128×1024×256 in int8 from 0.96 to 1.40, in int4 from 1.02 to 1.45; a vector by 8192×16384, time
//! of int8 11.2 to 8.3 ms, of int4 8.6 to 6.4 ms.
use crate::dtype::{at, at_mut, read_f32, size};
use crate::math::held;
use crate::quantized_layout::*;
use crate::quantized_products::*;
use crate::quantized_rows::*;
#[cfg(target_feature = "relaxed-simd")]
use crate::quantized_simd::one_step;
use crate::simd::*;

#[repr(C)]
pub struct LinearQuantized {
    /// What `quantize_rows` wrote.
    x: *const u8,
    /// Records (⌈O/4⌉, G), then a float a row (quantized_layout.rs).
    weight: *const u8,
    format: u32,
    /// (O) or null.
    bias: *const u8,
    bias_dtype: u32,
    /// (M, O) f32 contiguous.
    out: *mut f32,
    m: u32,
    i: u32,
    o: u32,
    /// Rows and columns of one part; columns are a multiple of 4.
    row_block: u32,
    col_block: u32,
}

#[no_mangle]
pub unsafe extern "C" fn linear_quantized(
    params: *const LinearQuantized,
    scratch: *mut u8,
    begin: u32,
    end: u32,
) {
    let p = &*params;
    let cols = p.o.div_ceil(p.col_block);
    for part in begin..end {
        let row = (part / cols * p.row_block) as usize;
        let col = (part % cols * p.col_block) as usize;
        let t = Block {
            p,
            groups: (p.i as usize).div_ceil(GROUP),
            row,
            m: (p.m as usize - row).min(p.row_block as usize),
            col,
            n: (p.o as usize - col).min(p.col_block as usize),
            bias: scratch as *mut f32,
        };
        if !p.bias.is_null() {
            read_f32(at(p.bias, col, size(p.bias_dtype)), p.bias_dtype, 1, t.n, t.bias);
        }
        #[cfg(target_feature = "relaxed-simd")]
        match (p.format, one_step()) {
            (INT8, false) => t.run::<Eight, INT8>(),
            (INT8, true) => t.run::<EightAtOnce, INT8>(),
            (INT8_G32, false) => t.run::<Eight, INT8_G32>(),
            (INT8_G32, true) => t.run::<EightAtOnce, INT8_G32>(),
            (_, false) => t.run::<Four, INT4_G32>(),
            (_, true) => t.run::<FourAtOnce, INT4_G32>(),
        }
        #[cfg(not(target_feature = "relaxed-simd"))]
        match p.format {
            INT8 => t.run::<Eight, INT8>(),
            INT8_G32 => t.run::<Eight, INT8_G32>(),
            _ => t.run::<Four, INT4_G32>(),
        }
    }
}

/// Columns, in fours, that `rows` rows of x meet at a time: eight sums, or four where each takes two registers.
const fn columns(rows: usize) -> usize {
    (if cfg!(target_feature = "relaxed-simd") {
        8
    } else {
        4
    }) / rows
}

/// One part.
struct Block<'a> {
    p: &'a LinearQuantized,
    groups: usize,
    row: usize,
    m: usize,
    col: usize,
    n: usize,
    /// (n) f32 where there is a bias.
    bias: *mut f32,
}

impl Block<'_> {
    unsafe fn run<P: Products, const FORMAT: u32>(&self) {
        let p = self.p;
        let (m, end) = (p.m as usize, self.row + self.m);
        let first = RowBlock::of(self.row, m, self.groups);
        let last = RowBlock::of(end - 1, m, self.groups);
        let fours = (last.row - first.row) / 4 + usize::from(last.rows == 4);
        if fours > 0 {
            self.tiles::<P, FORMAT, 4, { columns(4) }>(first, fours);
        }
        match last.rows {
            1 => self.tiles::<P, FORMAT, 1, { columns(1) }>(last, 1),
            2 => self.tiles::<P, FORMAT, 2, { columns(2) }>(last, 1),
            _ => {}
        }
    }

    /// `count` blocks of `R` rows from `first` on, against all columns, `C` times four at a time.
    #[inline(never)]
    unsafe fn tiles<P: Products, const FORMAT: u32, const R: usize, const C: usize>(
        &self,
        first: RowBlock,
        count: usize,
    ) {
        let p = self.p;
        let stride = self.groups * record_bytes(FORMAT);
        let of_rows = at(p.weight, (p.o as usize).div_ceil(4), stride) as *const f32;
        let constants = Held::new();
        let fours = self.n.div_ceil(4);
        // One row waits for its weights: it reads them as C long ascending streams (see dot.rs), then what is left.
        let far = if R == 1 { fours / C } else { 0 };
        let mut four = 0;
        while four < fours {
            let (between, here) = if four < far {
                (far, C)
            } else {
                (1, (fours - four).min(C))
            };
            // Where there are fewer columns, the last of them are computed again.
            let apart = core::array::from_fn(|c| c.min(here - 1) * between * stride);
            let w = at(p.weight, self.col / 4 + four, stride);
            for tile in 0..count {
                let row = first.row + tile * R;
                let x = RowBlock { row, ..first }.start(p.x);
                let sums = tile_sums::<P, FORMAT, R, C>(x, w, apart, self.groups, constants);
                for c in 0..here {
                    let at_col = (four + c * between) * 4;
                    let n = (self.n - at_col).min(4);
                    for r in 0..R.min(p.m as usize - row) {
                        let own = load(of_rows.add(self.col + at_col));
                        let mut v = match FORMAT {
                            INT8 => mul(sums[r][c], own),
                            _ => add(sums[r][c], own),
                        };
                        if !p.bias.is_null() {
                            v = add(v, load_up_to_4(self.bias.add(at_col), n));
                        }
                        let out = at_mut(p.out, (row + r).wrapping_mul(p.o as usize), 4);
                        store_up_to_4(out.wrapping_add(self.col + at_col), v, n);
                    }
                }
            }
            four = match far {
                _ if four >= far => four + C,
                _ if four + 1 < far => four + 1,
                _ => far * C,
            };
        }
    }
}

/// `R` rows of x against `C` times four rows of weights, which lie `apart` from the first.
#[inline(always)]
unsafe fn tile_sums<P: Products, const FORMAT: u32, const R: usize, const C: usize>(
    mut x: *const u8,
    mut w: *const u8,
    apart: [usize; C],
    groups: usize,
    constants: Held,
) -> Sums<R, C> {
    let (keep, scale_up) = (
        held(f32::from_bits(0x8fff_e000)),
        held(f32::from_bits(0x7780_0000)),
    );
    let mut total = [[splat(0.0); C]; R];
    for _ in 0..groups {
        let records: [_; C] = apart.map(|apart| w.wrapping_add(apart));
        let sums = P::of::<R, C>(
            x.add(values_of(R)),
            records.map(|p| p.add(values_at(FORMAT))),
            constants,
        );
        let scale: [V; R] = core::array::from_fn(|r| load_splat((x as *const f32).add(r)));
        for c in 0..C {
            if FORMAT == INT8 {
                for r in 0..R {
                    total[r][c] = madd(from_int(sums[r][c]), scale[r], total[r][c]);
                }
            } else {
                // As dtype.rs widens halves, but for infinity and NaN, which the row has been told of.
                let halves = load_i16x4(records[c] as *const i16);
                let own = mul(and(shl::<13>(halves), keep), scale_up);
                for r in 0..R {
                    total[r][c] = madd(from_int(sums[r][c]), mul(scale[r], own), total[r][c]);
                }
            }
        }
        x = x.add(group_bytes(R));
        w = w.add(record_bytes(FORMAT));
    }
    total
}
