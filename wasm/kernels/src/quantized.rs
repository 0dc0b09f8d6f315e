//! `out (M, O) = x (M, I) · weight (O, I)ᵀ + bias (O)` with weights in 8 or 4 bits (quantized_layout.rs).
//!
//! Over widening weights to floats: rows of x become integers as well, a scale for 32 of them, and products are summed
//! as integers, exactly, so that no order of summation and no build changes them; only the 32-column sums meet in
//! float32. With int8 weights x has 7 bits, −63…63: then x + 64 is what relaxed dot products take as their second operand
//! on every processor, and what the 64 adds is known (the sums of a record). With int4 weights the weights are that
//! operand, x has 8 bits, and what the 8 adds is a sum over x.
//!
//! Ladder: lanes are outputs, so that a tile ends without sums across lanes, and scales cost one multiply-add for 128
//! products; a word of x is broadcast by its load. Few rows read four streams of weights at a time.
use crate::dtype::{at, at_mut, read_f32, size, Element, Half};
use crate::quantized_layout::*;
use crate::quantized_products::*;
#[cfg(target_feature = "relaxed-simd")]
use crate::quantized_simd::one_step;
use crate::simd::*;

/// Whether x is kept in bytes, for the relaxed products, or in 16 bits.
const BYTES: bool = cfg!(target_feature = "relaxed-simd");

/// Bytes of 32 columns of a row of x: scale (f32), correction (i32), values.
const X_GROUP: usize = if BYTES { 40 } else { 72 };

#[repr(C)]
pub struct QuantizeRows {
    /// (M, I) f32, rows `ldx` apart.
    x: *const f32,
    ldx: u32,
    /// (M, ⌈I/32⌉, `X_GROUP`) bytes.
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
    let last = ((end * p.rows) as usize).min(p.m as usize);
    for row in first..last {
        let x = at(p.x, row.wrapping_mul(p.ldx as usize), 4);
        for g in 0..groups {
            let to = at_mut(p.out, row.wrapping_mul(groups).wrapping_add(g), X_GROUP);
            let n = (p.i as usize - g * GROUP).min(GROUP);
            quantize_group(x.wrapping_add(g * GROUP), n, p.format, to);
        }
    }
}

#[inline(always)]
unsafe fn quantize_group(x: *const f32, n: usize, format: u32, to: *mut u8) {
    let mut v = [splat(0.0); 8];
    for (i, v) in v.iter_mut().enumerate() {
        if i * 4 < n {
            *v = load_up_to_4(x.add(i * 4), n - i * 4);
        }
    }
    // `max` keeps NaN: it reaches the scale, and by it the outputs.
    let mut most = splat(0.0);
    for v in v {
        most = max(most, abs(v));
    }
    let most = max(most, high_halves(most, most));
    let most = extract::<0>(max(most, lane::<1>(most)));
    let limit = if format == INT4_G32 { 127.0 } else { 63.0 };
    let offset = if format == INT4_G32 || !BYTES { 0 } else { 64 };
    // A quotient beyond float32 is one of numbers that add nothing.
    let inverse = if most > 1e-36 { limit / most } else { 0.0 };
    let magic = splat(12_582_912.0);
    let mut sum = splati(0);
    let values = to.add(8);
    for (i, v) in v.into_iter().enumerate() {
        let q = to_int(sub(add(mul(v, splat(inverse)), magic), magic));
        sum = addi(sum, q);
        let q = addi(q, splati(offset));
        for (t, q) in ints(q).into_iter().enumerate() {
            if BYTES {
                *values.add(i * 4 + t) = q as u8;
            } else {
                (values as *mut i16).add(i * 4 + t).write_unaligned(q as i16);
            }
        }
    }
    let [a, b, c, d] = ints(sum);
    (to as *mut f32).write_unaligned(most / limit);
    (to as *mut i32).add(1).write_unaligned(-8 * (a + b + c + d));
}

#[inline(always)]
fn ints(a: V) -> [i32; 4] {
    [extract::<0>(a), extract::<1>(a), extract::<2>(a), extract::<3>(a)].map(|x| x.to_bits() as i32)
}

#[repr(C)]
pub struct LinearQuantized {
    /// What `quantize_rows` wrote.
    x: *const u8,
    /// Records (⌈O/4⌉, G), then for int8 ⌈O/4⌉·4 f32 scales.
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
        match (p.format == INT4_G32, one_step()) {
            (false, false) => t.run::<Eight>(),
            (false, true) => t.run::<EightAtOnce>(),
            (true, false) => t.run::<Four>(),
            (true, true) => t.run::<FourAtOnce>(),
        }
        #[cfg(not(target_feature = "relaxed-simd"))]
        if p.format == INT4_G32 {
            t.run::<Four>();
        } else {
            t.run::<Eight>();
        }
    }
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
    unsafe fn run<P: Products>(&self) {
        if self.m == 1 {
            return self.tiles::<P, 1, 4>(0, 1);
        }
        let fours = self.m / 4;
        self.tiles::<P, 4, 2>(0, fours);
        if self.m & 2 != 0 {
            self.tiles::<P, 2, 2>(fours * 4, 1);
        }
        if self.m & 1 != 0 {
            self.tiles::<P, 1, 4>(self.m - 1, 1);
        }
    }

    /// `count` times `R` rows from row `first` on, against all columns.
    #[inline(never)]
    unsafe fn tiles<P: Products, const R: usize, const C: usize>(&self, first: usize, count: usize) {
        let p = self.p;
        let bytes = record_bytes(p.format);
        let stride = self.groups * bytes;
        let blocks = (p.o as usize).div_ceil(4);
        let scales = at(p.weight, blocks, stride) as *const f32;
        let mut j = 0;
        while j < self.n {
            let here = (self.n - j).div_ceil(4).min(C);
            let block = (self.col + j) / 4;
            let w: [_; C] = core::array::from_fn(|c| at(p.weight, block + c.min(here - 1), stride));
            for tile in 0..count {
                let row = self.row + first + tile * R;
                let x: [_; R] = core::array::from_fn(|r| at(p.x, row + r, self.groups * X_GROUP));
                let sums = tile_sums::<P, R, C>(x, w, self.groups, p.format);
                for c in 0..here {
                    let at_col = j + c * 4;
                    let n = (self.n - at_col).min(4);
                    for r in 0..R {
                        let mut v = sums[r][c];
                        if p.format == INT8 {
                            v = mul(v, load(scales.add(self.col + at_col)));
                        }
                        if !p.bias.is_null() {
                            v = add(v, load_up_to_4(self.bias.add(at_col), n));
                        }
                        let out = at_mut(p.out, (row + r).wrapping_mul(p.o as usize), 4);
                        store_up_to_4(out.wrapping_add(self.col + at_col), v, n);
                    }
                }
            }
            j += C * 4;
        }
    }
}

#[inline(always)]
unsafe fn tile_sums<P: Products, const R: usize, const C: usize>(
    mut x: [*const u8; R],
    mut w: [*const u8; C],
    groups: usize,
    format: u32,
) -> Sums<R, C> {
    let (bytes, values) = (record_bytes(format), values_at(format));
    let scaled = format != INT8;
    let held = Half::hold();
    let mut total = [[splat(0.0); C]; R];
    for _ in 0..groups {
        let sums = P::of(x.map(|p| p.add(8)), w.map(|p| p.add(values)));
        if scaled {
            let scales = w.map(|p| Half::load4(p, 0, held));
            for r in 0..R {
                let scale = load_splat(x[r] as *const f32);
                for c in 0..C {
                    total[r][c] = madd(from_int(sums[r][c]), mul(scale, scales[c]), total[r][c]);
                }
            }
        } else {
            for r in 0..R {
                let scale = load_splat(x[r] as *const f32);
                for c in 0..C {
                    total[r][c] = madd(from_int(sums[r][c]), scale, total[r][c]);
                }
            }
        }
        x = x.map(|p| p.add(X_GROUP));
        w = w.map(|p| p.add(bytes));
    }
    total
}
