//! Root-mean-square and layer normalisation over rows.
//!
//! Over the naive loops: one vectorised pass per statistic with four chains in a fixed order, weights widened once
//! per call and not once per row.
use crate::dtype::{at, at_mut, size};
use crate::reduce::sum_of;
use crate::simd::*;
use crate::strided::as_f32;

#[repr(C)]
pub struct Norm {
    /// (M, N), rows `ldx` apart.
    x: *const u8,
    dtype: u32,
    ldx: u32,
    /// (N), null means ones.
    weight: *const u8,
    weight_dtype: u32,
    /// (N), null means zeros; layer normalisation only.
    bias: *const u8,
    bias_dtype: u32,
    eps: f32,
    /// Added to the weight; root-mean-square only.
    unit_offset: f32,
    /// (M, N) f32 contiguous.
    out: *mut f32,
    m: u32,
    n: u32,
    /// Rows of one part.
    rows: u32,
}

impl Norm {
    unsafe fn each_row(
        &self,
        scratch: *mut u8,
        begin: u32,
        end: u32,
        f: impl Fn(*const f32, *mut f32, *const f32, *const f32),
    ) {
        let n = self.n as usize;
        let room = scratch as *mut f32;
        let vector = |p: *const u8, dtype, room| {
            if p.is_null() {
                core::ptr::null()
            } else {
                as_f32(p, dtype, 1, n, room)
            }
        };
        let weight = vector(self.weight, self.weight_dtype, room);
        let bias = vector(self.bias, self.bias_dtype, room.add(n));
        for r in begin * self.rows..(end * self.rows).min(self.m) {
            let row = at(
                self.x,
                (r as usize).wrapping_mul(self.ldx as usize),
                size(self.dtype),
            );
            let x = as_f32(row, self.dtype, 1, n, room.add(2 * n));
            f(x, at_mut(self.out, (r as usize).wrapping_mul(n), 4), weight, bias);
        }
    }
}

#[inline(always)]
unsafe fn transform(n: usize, f: impl Fn(usize) -> f32, g: impl Fn(usize) -> V, out: *mut f32) {
    let mut i = 0;
    while i + 4 <= n {
        store(out.add(i), g(i));
        i += 4;
    }
    while i < n {
        *out.add(i) = f(i);
        i += 1;
    }
}

#[no_mangle]
pub unsafe extern "C" fn rms_norm(params: *const Norm, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let n = p.n as usize;
    p.each_row(scratch, begin, end, |x, out, weight, _| {
        let mean = sum_of(x, n, |a, x| madd(x, x, a)) / n as f32;
        let scale = 1.0 / root(mean + p.eps);
        let (s, offset) = (splat(scale), splat(p.unit_offset));
        if weight.is_null() {
            transform(n, |i| *x.add(i) * scale, |i| mul(load(x.add(i)), s), out);
        } else {
            transform(
                n,
                |i| *x.add(i) * scale * (*weight.add(i) + p.unit_offset),
                |i| mul(mul(load(x.add(i)), s), add(load(weight.add(i)), offset)),
                out,
            );
        }
    });
}

#[no_mangle]
pub unsafe extern "C" fn layer_norm(params: *const Norm, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let n = p.n as usize;
    p.each_row(scratch, begin, end, |x, out, weight, bias| {
        let mean = sum_of(x, n, add) / n as f32;
        // The deviations go to the output first: padding lanes of a tail must not count as −mean.
        transform(n, |i| *x.add(i) - mean, |i| sub(load(x.add(i)), splat(mean)), out);
        let variance = sum_of(out, n, |a, d| madd(d, d, a)) / n as f32;
        let scale = 1.0 / root(variance + p.eps);
        transform(
            n,
            |i| *out.add(i) * scale,
            |i| mul(load(out.add(i)), splat(scale)),
            out,
        );
        if !weight.is_null() {
            transform(
                n,
                |i| *out.add(i) * *weight.add(i),
                |i| mul(load(out.add(i)), load(weight.add(i))),
                out,
            );
        }
        if !bias.is_null() {
            transform(
                n,
                |i| *out.add(i) + *bias.add(i),
                |i| add(load(out.add(i)), load(bias.add(i))),
                out,
            );
        }
    });
}

fn root(x: f32) -> f32 {
    extract::<0>(sqrt(splat(x)))
}
