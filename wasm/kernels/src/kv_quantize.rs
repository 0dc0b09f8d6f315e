//! Keys and values into int8 rows with a scale each (symmetric, as in KIVI's per-token form, arXiv 2402.02750): a
//! token's row of a head is scaled by its own largest element, so that a cache can be written a token at a time.
use crate::attention::fill;
use crate::dtype::{at, at_mut, read_f32, size};
use crate::simd::*;

/// Integers from −127 to 127: symmetric, and a sum of products stays clear of overflow longest.
const LEVELS: f32 = 127.0;
/// Adding it rounds to the nearest integer, ties to even, for |x| < 2²².
const ROUND: f32 = 12_582_912.0;

#[repr(C)]
pub struct KvQuantize {
    /// (B, H, N, D) floats; strides of the first three dimensions.
    x: *const u8,
    dtype: u32,
    x_strides: [u32; 3],
    /// (B, H, N, D) int8.
    out: *mut u8,
    out_strides: [u32; 3],
    /// (B, H, N) f32.
    scales: *mut f32,
    scale_strides: [u32; 3],
    h: u32,
    n: u32,
    d: u32,
    /// Rows of one part, of `rows`.
    per_part: u32,
    rows: u32,
}

/// Parts: `per_part` of the B · H · N rows.
#[no_mangle]
pub unsafe extern "C" fn kv_quantize(params: *const KvQuantize, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let row = scratch as *mut f32;
    for i in begin * p.per_part..(end * p.per_part).min(p.rows) {
        let (j, bh) = ((i % p.n) as usize, i / p.n);
        let (b, h) = ((bh / p.h) as usize, (bh % p.h) as usize);
        let place = |s: &[u32; 3]| {
            b.wrapping_mul(s[0] as usize)
                .wrapping_add(h.wrapping_mul(s[1] as usize))
                .wrapping_add(j.wrapping_mul(s[2] as usize))
        };
        let d = p.d as usize;
        read_f32(at(p.x, place(&p.x_strides), size(p.dtype)), p.dtype, 1, d, row);
        fill(row.add(d), d.next_multiple_of(4) - d, 0.0);
        let to = at_mut(p.out, place(&p.out_strides), 1);
        *at_mut(p.scales, place(&p.scale_strides), 4) = quantize(row, d, to as *mut i8);
    }
}

/// Writes a row, padded with zeros to whole vectors, as integers; returns their scale.
unsafe fn quantize(row: *const f32, d: usize, to: *mut i8) -> f32 {
    let mut most = splat(0.0);
    let mut odd = splat(0.0);
    for i in (0..d).step_by(4) {
        let x = load(row.add(i));
        most = pmax(most, abs(x));
        // Not zero where x is infinite or NaN.
        odd = or(odd, ne(sub(x, x), splat(0.0)));
    }
    if any(odd) {
        core::ptr::write_bytes(to, 0, d);
        return f32::NAN;
    }
    let scale = largest(most) / LEVELS;
    if scale == 0.0 {
        core::ptr::write_bytes(to, 0, d);
        return 0.0;
    }
    for i in (0..d).step_by(4) {
        // A scale so small that it lost digits must not give more levels than there are.
        let x = div(load(row.add(i)), splat(scale));
        let x = at_most(at_least(x, splat(-LEVELS)), splat(LEVELS));
        let q = sub(add(x, splat(ROUND)), splat(ROUND));
        let q = [extract::<0>(q), extract::<1>(q), extract::<2>(q), extract::<3>(q)];
        for (k, q) in q.iter().take(d - i).enumerate() {
            *to.add(i + k) = *q as i8;
        }
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(x: &[f32]) -> (Vec<i8>, f32) {
        let mut row = x.to_vec();
        row.resize(x.len().next_multiple_of(4), 0.0);
        let mut q = vec![1; x.len()];
        let scale = unsafe { quantize(row.as_ptr(), x.len(), q.as_mut_ptr()) };
        (q, scale)
    }

    #[test]
    fn the_largest_element_has_the_largest_integer() {
        let (q, scale) = quantized(&[1.0, -254.0, 3.0, 5.0, 127.0]);
        assert_eq!((q, scale), (vec![0, -127, 2, 2, 64], 2.0));
    }

    #[test]
    fn corners() {
        assert_eq!(quantized(&[0.0, -0.0, 0.0]), (vec![0, 0, 0], 0.0));
        assert_eq!(quantized(&[1e-45, 0.0]), (vec![0, 0], 0.0));
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (q, scale) = quantized(&[1.0, x, 2.0, 3.0, 4.0]);
            assert!(q == [0; 5] && scale.is_nan());
        }
        let (q, scale) = quantized(&[f32::MAX, -f32::MAX, f32::MAX / 127.0]);
        assert!(q == [127, -127, 1] && scale.is_finite());
        let (q, _) = quantized(&[3e-43, -3e-43]);
        assert!(q.iter().all(|q| q.unsigned_abs() > 100));
    }
}
