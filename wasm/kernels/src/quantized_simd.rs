//! The integer vectors of quantized.rs: bytes, 16-bit lanes and the dot products of both.
//!
//! The relaxed products are only called where the second operand is within 0…127 and no pair of products leaves 16 bits:
//! there they mean the same on every processor, so that integers are exact in every build. What differs is how
//! fast they are, which [`one_step`] finds out.
#![allow(dead_code)]
use crate::simd::{extract, V};

#[cfg(target_arch = "wasm32")]
pub use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub use portable::*;

/// The lanes.
#[inline(always)]
pub fn ints(a: V) -> [i32; 4] {
    [extract::<0>(a), extract::<1>(a), extract::<2>(a), extract::<3>(a)].map(|x| x.to_bits() as i32)
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use crate::simd::V;
    use core::arch::wasm32::*;

    #[inline(always)]
    pub fn splat8(x: i8) -> V {
        i8x16_splat(x)
    }
    #[inline(always)]
    pub fn splat16(x: i16) -> V {
        i16x8_splat(x)
    }
    #[inline(always)]
    pub fn add16(a: V, b: V) -> V {
        i16x8_add(a, b)
    }
    /// 32-bit lanes as 16-bit ones, held to their range.
    #[inline(always)]
    pub fn narrow16(a: V, b: V) -> V {
        i16x8_narrow_i32x4(a, b)
    }
    /// 16-bit lanes as bytes, held to their range.
    #[inline(always)]
    pub fn narrow8(a: V, b: V) -> V {
        i8x16_narrow_i16x8(a, b)
    }
    /// The first eight bytes, signed, as 16-bit lanes.
    #[inline(always)]
    pub fn widen_low(a: V) -> V {
        i16x8_extend_low_i8x16(a)
    }
    /// The last eight bytes, signed, as 16-bit lanes.
    #[inline(always)]
    pub fn widen_high(a: V) -> V {
        i16x8_extend_high_i8x16(a)
    }
    /// Sums of two neighbouring products of 16-bit lanes.
    #[inline(always)]
    pub fn dot16(a: V, b: V) -> V {
        i32x4_dot_i16x8(a, b)
    }
    /// `[a0, a2, b0, b2]` + `[a1, a3, b1, b3]`
    #[inline(always)]
    pub fn add_pairs(a: V, b: V) -> V {
        i32x4_add(
            i32x4_shuffle::<0, 2, 4, 6>(a, b),
            i32x4_shuffle::<1, 3, 5, 7>(a, b),
        )
    }
    #[inline(always)]
    pub unsafe fn load32_splat(p: *const u8) -> V {
        v128_load32_splat(p as *const u32)
    }
    #[inline(always)]
    pub unsafe fn load64_splat(p: *const u8) -> V {
        v128_load64_splat(p as *const u64)
    }
    #[inline(always)]
    pub unsafe fn load_bytes(p: *const u8) -> V {
        v128_load(p as *const v128)
    }
    /// Sums of two neighbouring products, `a` signed, `b` within 0…127.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn dot8(a: V, b: V) -> V {
        i16x8_relaxed_dot_i8x16_i7x16(a, b)
    }
    /// Sums of four neighbouring products, `a` signed, `b` within 0…127, added to `c`.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn dot8_add(a: V, b: V, c: V) -> V {
        i32x4_relaxed_dot_i8x16_i7x16_add(a, b, c)
    }
    /// Whether [`dot8_add`] is one instruction here (AVX-VNNI, ARM's dot product). What stands in for it elsewhere
    /// saturates pairs, which bytes beyond what is promised bring to light: XNNPACK asks the same way.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(never)]
    pub fn one_step() -> bool {
        let pair = core::hint::black_box([127i8, -1]);
        let sum = dot8_add(splat8(pair[0]), splat8(pair[1]), i32x4_splat(0));
        i32x4_extract_lane::<0>(sum) != 2 * i16::MAX as i32
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod portable {
    use crate::simd::V;

    fn bytes(v: V) -> [i8; 16] {
        unsafe { core::mem::transmute(v.0) }
    }
    fn of_bytes(b: [i8; 16]) -> V {
        V(unsafe { core::mem::transmute::<[i8; 16], [f32; 4]>(b) })
    }
    fn shorts(v: V) -> [i16; 8] {
        unsafe { core::mem::transmute(v.0) }
    }
    fn of_shorts(s: [i16; 8]) -> V {
        V(unsafe { core::mem::transmute::<[i16; 8], [f32; 4]>(s) })
    }
    fn ints(v: V) -> [i32; 4] {
        v.0.map(|x| x.to_bits() as i32)
    }
    fn of_ints(i: [i32; 4]) -> V {
        V(i.map(|x| f32::from_bits(x as u32)))
    }

    pub fn splat8(x: i8) -> V {
        of_bytes([x; 16])
    }
    pub fn splat16(x: i16) -> V {
        of_shorts([x; 8])
    }
    pub fn add16(a: V, b: V) -> V {
        let (a, b) = (shorts(a), shorts(b));
        of_shorts(core::array::from_fn(|i| a[i].wrapping_add(b[i])))
    }
    pub fn narrow16(a: V, b: V) -> V {
        let (a, b) = (ints(a), ints(b));
        let held = |x: i32| x.clamp(i16::MIN as i32, i16::MAX as i32) as i16;
        of_shorts(core::array::from_fn(|i| {
            held(if i < 4 { a[i] } else { b[i - 4] })
        }))
    }
    pub fn narrow8(a: V, b: V) -> V {
        let (a, b) = (shorts(a), shorts(b));
        let held = |x: i16| x.clamp(i8::MIN as i16, i8::MAX as i16) as i8;
        of_bytes(core::array::from_fn(|i| {
            held(if i < 8 { a[i] } else { b[i - 8] })
        }))
    }
    pub fn widen_low(a: V) -> V {
        let a = bytes(a);
        of_shorts(core::array::from_fn(|i| a[i] as i16))
    }
    pub fn widen_high(a: V) -> V {
        let a = bytes(a);
        of_shorts(core::array::from_fn(|i| a[8 + i] as i16))
    }
    pub fn dot16(a: V, b: V) -> V {
        let (a, b) = (shorts(a), shorts(b));
        let product = |i: usize| a[i] as i32 * b[i] as i32;
        of_ints(core::array::from_fn(|i| product(2 * i) + product(2 * i + 1)))
    }
    pub fn add_pairs(a: V, b: V) -> V {
        let (a, b) = (ints(a), ints(b));
        of_ints([a[0] + a[1], a[2] + a[3], b[0] + b[1], b[2] + b[3]])
    }
    pub unsafe fn load64_splat(p: *const u8) -> V {
        let x = (p as *const [i16; 4]).read_unaligned();
        of_shorts(core::array::from_fn(|i| x[i % 4]))
    }
    pub unsafe fn load_bytes(p: *const u8) -> V {
        of_bytes((p as *const [i8; 16]).read_unaligned())
    }
}
