//! Four-lane vectors: thin names over the WebAssembly SIMD instructions the kernels use.
//!
//! `madd` is where the two builds differ: a fused multiply-add with relaxed SIMD, a rounded
//! multiply and add without (the same bits on every engine). `pmax`, for values, and `at_least` and `at_most`, for
//! bounds, stand in for `f32x4.max`, which costs about eight instructions on x64, for NaN and signed zero.
//!
//! Length: a few lines for each instruction, and kernels find all of them in one place.
#![allow(dead_code)]

#[cfg(target_arch = "wasm32")]
pub use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub use crate::simd_portable::*;

#[cfg(target_arch = "wasm32")]
mod wasm {
    use core::arch::wasm32::*;

    /// Four f32 or i32 lanes.
    pub type V = v128;

    macro_rules! forward {
        ($($name:ident = $intrinsic:ident ($($x:ident),*);)*) => { $(
            #[inline(always)]
            pub fn $name($($x: V),*) -> V { $intrinsic($($x),*) }
        )* };
    }

    forward! {
        add = f32x4_add(a, b);
        sub = f32x4_sub(a, b);
        mul = f32x4_mul(a, b);
        div = f32x4_div(a, b);
        max = f32x4_max(a, b);
        pmax = f32x4_pmax(a, b);
        neg = f32x4_neg(a);
        abs = f32x4_abs(a);
        sqrt = f32x4_sqrt(a);
        gt = f32x4_gt(a, b);
        lt = f32x4_lt(a, b);
        eq = f32x4_eq(a, b);
        ne = f32x4_ne(a, b);
        and = v128_and(a, b);
        or = v128_or(a, b);
        addi = i32x4_add(a, b);
        subi = i32x4_sub(a, b);
        muli = i32x4_mul(a, b);
        maxi = i32x4_max(a, b);
        gti = i32x4_gt(a, b);
        lti = i32x4_lt(a, b);
        eqi = i32x4_eq(a, b);
        to_int = i32x4_trunc_sat_f32x4(a);
        from_int = f32x4_convert_i32x4(a);
    }

    /// `a·b + c`.
    #[inline(always)]
    pub fn madd(a: V, b: V, c: V) -> V {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_madd(a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return f32x4_add(f32x4_mul(a, b), c);
    }

    /// `x`, or `floor` where that is larger; a NaN stays. The operands of the relaxed form are in the order in
    /// which x64 keeps it; ARM keeps it either way.
    #[inline(always)]
    pub fn at_least(x: V, floor: V) -> V {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_max(floor, x);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return f32x4_pmax(x, floor);
    }

    /// `x`, or `ceiling` where that is smaller; a NaN stays.
    #[inline(always)]
    pub fn at_most(x: V, ceiling: V) -> V {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_min(ceiling, x);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return f32x4_pmin(x, ceiling);
    }

    /// Lanes of `a` where `mask` is set, else of `b`.
    #[inline(always)]
    pub fn select(mask: V, a: V, b: V) -> V {
        v128_bitselect(a, b, mask)
    }

    #[inline(always)]
    pub fn andnot(a: V, b: V) -> V {
        v128_andnot(a, b)
    }

    #[inline(always)]
    pub fn any(mask: V) -> bool {
        v128_any_true(mask)
    }

    #[inline(always)]
    pub fn splat(x: f32) -> V {
        f32x4_splat(x)
    }

    #[inline(always)]
    pub fn splati(x: i32) -> V {
        i32x4_splat(x)
    }

    #[inline(always)]
    pub fn vec4(x: [f32; 4]) -> V {
        f32x4(x[0], x[1], x[2], x[3])
    }

    #[inline(always)]
    pub fn vec4i(x: [i32; 4]) -> V {
        i32x4(x[0], x[1], x[2], x[3])
    }

    #[inline(always)]
    pub fn shl<const N: u32>(a: V) -> V {
        i32x4_shl(a, N)
    }

    #[inline(always)]
    pub fn shr<const N: u32>(a: V) -> V {
        u32x4_shr(a, N)
    }

    /// Small integers in a word of [`dot`]: bytes where relaxed SIMD multiplies them, else halves.
    pub const WIDE_DOT: usize = if cfg!(target_feature = "relaxed-simd") {
        4
    } else {
        2
    };

    /// Adds to each lane of `sum` the products of the small integers of `a`, signed, and `b`, 0 to 127.
    #[inline(always)]
    pub fn dot(a: V, b: V, sum: V) -> V {
        #[cfg(target_feature = "relaxed-simd")]
        return i32x4_relaxed_dot_i8x16_i7x16_add(a, b, sum);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return i32x4_add(i32x4_dot_i16x8(a, b), sum);
    }

    /// A bit for each lane that is set.
    #[inline(always)]
    pub fn bits(mask: V) -> u32 {
        i32x4_bitmask(mask) as u32
    }

    /// A bit for each of sixteen bytes that is not 0.
    #[inline(always)]
    pub unsafe fn load_bits16(p: *const u8) -> u32 {
        let zero = i8x16_eq(v128_load(p as *const v128), i8x16_splat(0));
        !(i8x16_bitmask(zero) as u32) & 0xffff
    }

    /// Lane `I` in all four lanes.
    #[inline(always)]
    pub fn lane<const I: usize>(a: V) -> V {
        i32x4_shuffle::<I, I, I, I>(a, a)
    }

    /// `[a0, a1, b2, b3]`
    #[inline(always)]
    pub fn low_then_high(a: V, b: V) -> V {
        i32x4_shuffle::<0, 1, 6, 7>(a, b)
    }

    /// `[a0, b1, a2, b3]`
    #[inline(always)]
    pub fn even_and_odd(a: V, b: V) -> V {
        i32x4_shuffle::<0, 5, 2, 7>(a, b)
    }

    /// `[a0, b0, a1, b1]`
    #[inline(always)]
    pub fn zip_low(a: V, b: V) -> V {
        i32x4_shuffle::<0, 4, 1, 5>(a, b)
    }

    /// `[a2, b2, a3, b3]`
    #[inline(always)]
    pub fn zip_high(a: V, b: V) -> V {
        i32x4_shuffle::<2, 6, 3, 7>(a, b)
    }

    /// `[a0, a1, b0, b1]`
    #[inline(always)]
    pub fn low_halves(a: V, b: V) -> V {
        i32x4_shuffle::<0, 1, 4, 5>(a, b)
    }

    /// `[a2, a3, b2, b3]`
    #[inline(always)]
    pub fn high_halves(a: V, b: V) -> V {
        i32x4_shuffle::<2, 3, 6, 7>(a, b)
    }

    #[inline(always)]
    pub fn extract<const I: usize>(a: V) -> f32 {
        f32x4_extract_lane::<I>(a)
    }

    #[inline(always)]
    pub unsafe fn load(p: *const f32) -> V {
        v128_load(p as *const v128)
    }

    #[inline(always)]
    pub unsafe fn store(p: *mut f32, v: V) {
        v128_store(p as *mut v128, v)
    }

    #[inline(always)]
    pub unsafe fn load_splat(p: *const f32) -> V {
        v128_load32_splat(p as *const u32)
    }

    /// Four unsigned 16-bit values as 32-bit lanes.
    #[inline(always)]
    pub unsafe fn load_u16x4(p: *const u16) -> V {
        i32x4_load_extend_u16x4(p)
    }

    /// Four signed 16-bit values as 32-bit lanes.
    #[inline(always)]
    pub unsafe fn load_i16x4(p: *const i16) -> V {
        i32x4_load_extend_i16x4(p)
    }

    /// Four signed bytes as 32-bit lanes.
    #[inline(always)]
    pub unsafe fn load_i8x4(p: *const i8) -> V {
        i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(v128_load32_zero(p as *const u32)))
    }

    /// Eight signed bytes as 32-bit lanes.
    #[inline(always)]
    pub unsafe fn load_i8x8(p: *const i8) -> [V; 2] {
        let halves = i16x8_load_extend_i8x8(p);
        [i32x4_extend_low_i16x8(halves), i32x4_extend_high_i16x8(halves)]
    }

    /// The four low 16-bit lanes as the high halves of 32-bit lanes.
    #[inline(always)]
    pub fn low_above_zeros(a: V) -> V {
        i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(i16x8_splat(0), a)
    }

    /// The four high ones.
    #[inline(always)]
    pub fn high_above_zeros(a: V) -> V {
        i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(i16x8_splat(0), a)
    }

    /// The first `n` (1 to 3) floats, zeros after them.
    #[inline(always)]
    pub unsafe fn load_part(p: *const f32, n: usize) -> V {
        match n {
            1 => v128_load32_zero(p as *const u32),
            2 => v128_load64_zero(p as *const u64),
            _ => v128_load32_lane::<2>(v128_load64_zero(p as *const u64), p.add(2) as *const u32),
        }
    }

    /// Stores the first `n` (1 to 3) lanes.
    #[inline(always)]
    pub unsafe fn store_part(p: *mut f32, v: V, n: usize) {
        if n == 1 {
            v128_store32_lane::<0>(v, p as *mut u32);
            return;
        }
        v128_store64_lane::<0>(v, p as *mut u64);
        if n == 3 {
            v128_store32_lane::<2>(v, p.add(2) as *mut u32);
        }
    }
}

/// The first `n` floats, at most four; zeros after them.
#[inline(always)]
pub unsafe fn load_up_to_4(p: *const f32, n: usize) -> V {
    if n >= 4 {
        load(p)
    } else {
        load_part(p, n)
    }
}

/// Stores the first `n` lanes, at most four.
#[inline(always)]
pub unsafe fn store_up_to_4(p: *mut f32, v: V, n: usize) {
    if n >= 4 {
        store(p, v);
    } else {
        store_part(p, v, n);
    }
}

/// Sum of the lanes, always as `(0+2)+(1+3)`: the order of [`sum4`].
#[inline(always)]
pub fn sum(a: V) -> f32 {
    (extract::<0>(a) + extract::<2>(a)) + (extract::<1>(a) + extract::<3>(a))
}

/// Lane sums of four vectors, each in the order of [`sum`].
#[inline(always)]
pub fn sum4(a: [V; 4]) -> V {
    let lo = add(zip_low(a[0], a[1]), zip_high(a[0], a[1]));
    let hi = add(zip_low(a[2], a[3]), zip_high(a[2], a[3]));
    add(low_halves(lo, hi), high_halves(lo, hi))
}

/// Rows, of vectors whose lane l of vector r belongs to row (l + r) % 4.
#[inline(always)]
pub fn straight(a: [V; 4]) -> [V; 4] {
    let (w, x) = (low_then_high(a[0], a[2]), low_then_high(a[1], a[3]));
    let (y, z) = (low_then_high(a[2], a[0]), low_then_high(a[3], a[1]));
    [
        even_and_odd(w, z),
        even_and_odd(x, w),
        even_and_odd(y, x),
        even_and_odd(z, y),
    ]
}

/// Rows become columns.
#[inline(always)]
pub fn transpose4(a: [V; 4]) -> [V; 4] {
    let (x, y) = (zip_low(a[0], a[1]), zip_high(a[0], a[1]));
    let (z, w) = (zip_low(a[2], a[3]), zip_high(a[2], a[3]));
    [
        low_halves(x, z),
        high_halves(x, z),
        low_halves(y, w),
        high_halves(y, w),
    ]
}

/// Largest lane.
#[inline(always)]
pub fn largest(a: V) -> f32 {
    let b = pmax(a, high_halves(a, a));
    extract::<0>(pmax(b, lane::<1>(b)))
}
