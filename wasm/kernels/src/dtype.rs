//! Element types and the loads that widen them to f32, and the stores that round back.
//!
//! Length: everything that knows how a type is stored.
use crate::math::held;
use crate::simd::*;

/// Element types by the code `params.ts` uses. int64 tensors are stored as 32-bit integers.
pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const BF16: u32 = 2;
pub const I32: u32 = 3;
pub const I8: u32 = 4;
pub const U8: u32 = 5;

/// Bytes of one element.
#[inline(always)]
pub fn size(dtype: u32) -> usize {
    match dtype {
        F32 | I32 => 4,
        F16 | BF16 => 2,
        _ => 1,
    }
}

/// `p` moved by `n` elements of `bytes`; wrapping, because memory may be 4 GiB and offsets exceed `isize`.
#[inline(always)]
pub fn at<T>(p: *const T, n: usize, bytes: usize) -> *const T {
    (p as *const u8).wrapping_add(n.wrapping_mul(bytes)) as *const T
}

/// As [`at`], for writing.
#[inline(always)]
pub fn at_mut<T>(p: *mut T, n: usize, bytes: usize) -> *mut T {
    at(p as *const T, n, bytes) as *mut T
}

/// A storage type that kernels widen in registers. Widening is exact, so arithmetic never depends on the path.
pub trait Element {
    const BYTES: usize;
    /// Vector constants the conversion needs, made before a loop (see `math::held`).
    type Held: Copy;
    fn hold() -> Self::Held;
    /// Elements `i..i+4` after `p`.
    unsafe fn load4(p: *const u8, i: usize, held: Self::Held) -> V;
    /// Whether eight elements are loaded with fewer instructions than twice four.
    const PAIRS: bool;
    /// Elements `i..i+8` after `p`.
    unsafe fn load8(p: *const u8, i: usize, held: Self::Held) -> [V; 2];
    /// Element `i` after `p`.
    unsafe fn load1(p: *const u8, i: usize) -> f32;

    /// Elements `0..n` (n from 1 to 3) after `p`, zeros after them.
    #[inline(always)]
    unsafe fn load_tail(p: *const u8, n: usize) -> V {
        let y = if n > 1 { Self::load1(p, 1) } else { 0.0 };
        let z = if n > 2 { Self::load1(p, 2) } else { 0.0 };
        vec4([Self::load1(p, 0), y, z, 0.0])
    }
}

pub struct Single;
pub struct Half;
pub struct BFloat;
/// int8; what its scale is, the reader knows.
pub struct Byte;

impl Element for Single {
    const BYTES: usize = 4;
    type Held = ();
    #[inline(always)]
    fn hold() {}
    #[inline(always)]
    unsafe fn load4(p: *const u8, i: usize, _: ()) -> V {
        load((p as *const f32).add(i))
    }
    const PAIRS: bool = false;
    #[inline(always)]
    unsafe fn load8(p: *const u8, i: usize, held: ()) -> [V; 2] {
        [Self::load4(p, i, held), Self::load4(p, i + 4, held)]
    }
    #[inline(always)]
    unsafe fn load1(p: *const u8, i: usize) -> f32 {
        *(p as *const f32).add(i)
    }
}

impl Element for BFloat {
    const BYTES: usize = 2;
    type Held = ();
    #[inline(always)]
    fn hold() {}
    #[inline(always)]
    unsafe fn load4(p: *const u8, i: usize, _: ()) -> V {
        shl::<16>(load_u16x4((p as *const u16).add(i)))
    }
    const PAIRS: bool = true;
    #[inline(always)]
    unsafe fn load8(p: *const u8, i: usize, _: ()) -> [V; 2] {
        let x = load((p as *const u16).add(i) as *const f32);
        [low_above_zeros(x), high_above_zeros(x)]
    }
    #[inline(always)]
    unsafe fn load1(p: *const u8, i: usize) -> f32 {
        f32::from_bits((*(p as *const u16).add(i) as u32) << 16)
    }
}

impl Element for Byte {
    const BYTES: usize = 1;
    type Held = ();
    #[inline(always)]
    fn hold() {}
    #[inline(always)]
    unsafe fn load4(p: *const u8, i: usize, _: ()) -> V {
        from_int(load_i8x4((p as *const i8).add(i)))
    }
    const PAIRS: bool = true;
    #[inline(always)]
    unsafe fn load8(p: *const u8, i: usize, _: ()) -> [V; 2] {
        load_i8x8((p as *const i8).add(i)).map(from_int)
    }
    #[inline(always)]
    unsafe fn load1(p: *const u8, i: usize) -> f32 {
        *(p as *const i8).add(i) as f32
    }
}

impl Element for Half {
    const BYTES: usize = 2;
    type Held = [V; 4];
    #[inline(always)]
    fn hold() -> [V; 4] {
        [0x8fff_e000, 0x7780_0000, 0x0f80_0000, 0x7f80_0000].map(|bits| held(f32::from_bits(bits)))
    }
    #[inline(always)]
    unsafe fn load4(p: *const u8, i: usize, held: [V; 4]) -> V {
        widen_half(load_i16x4((p as *const i16).add(i)), held)
    }
    // Its constants take the registers.
    const PAIRS: bool = false;
    #[inline(always)]
    unsafe fn load8(p: *const u8, i: usize, held: [V; 4]) -> [V; 2] {
        [Self::load4(p, i, held), Self::load4(p, i + 4, held)]
    }
    #[inline(always)]
    unsafe fn load1(p: *const u8, i: usize) -> f32 {
        extract::<0>(widen_half(splati(*(p as *const i16).add(i) as i32), Self::hold()))
    }
}

/// Sign-extended f16 bits → f32. The shifted bits are a float whose exponent is too small by 112: multiplying by
/// 2¹¹² puts that right and normalises subnormals. Infinity and NaN get their exponent back afterwards.
#[inline(always)]
fn widen_half(h: V, [keep, scale, top, infinity]: [V; 4]) -> V {
    let bits = and(shl::<13>(h), keep);
    let special = eqi(and(bits, top), top);
    or(mul(bits, scale), and(special, infinity))
}

/// f32 → f16 bits, nearest even, subnormals included (the float trick of Giesen's `float_to_half_fast3`).
pub fn to_half(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let a = bits & 0x7fff_ffff;
    let h = if a > 0x7f80_0000 {
        0x7e00
    } else if a >= 0x4780_0000 {
        0x7c00
    } else if a < 0x3880_0000 {
        // Adding ½ puts the rounded subnormal into the low mantissa bits.
        (f32::from_bits(a) + 0.5).to_bits() - 0x3f00_0000
    } else {
        (a - 0x3800_0000 + 0xfff + ((a >> 13) & 1)) >> 13
    };
    (sign | h) as u16
}

/// f32 → bf16 bits, nearest even.
pub fn to_bfloat(x: f32) -> u16 {
    let u = x.to_bits();
    if u & 0x7fff_ffff > 0x7f80_0000 {
        return ((u >> 16) | 0x40) as u16;
    }
    ((u + 0x7fff + ((u >> 16) & 1)) >> 16) as u16
}

unsafe fn widen_run<E: Element>(p: *const u8, stride: usize, n: usize, to: *mut f32) {
    let mut i = 0;
    if stride == 1 {
        let held = E::hold();
        while i + 4 <= n {
            store(to.add(i), E::load4(p, i, held));
            i += 4;
        }
    }
    while i < n {
        *to.add(i) = E::load1(at(p, i.wrapping_mul(stride), E::BYTES), 0);
        i += 1;
    }
}

/// Element of an integer type as i32.
#[inline(always)]
unsafe fn int1(p: *const u8, dtype: u32) -> i32 {
    match dtype {
        I32 => *(p as *const i32),
        I8 => *(p as *const i8) as i32,
        U8 => *p as i32,
        _ => (*p != 0) as i32,
    }
}

/// Copies `n` elements of any type, `stride` apart, to contiguous f32.
#[inline(never)]
pub unsafe fn read_f32(p: *const u8, dtype: u32, stride: usize, n: usize, to: *mut f32) {
    match dtype {
        F32 => widen_run::<Single>(p, stride, n, to),
        F16 => widen_run::<Half>(p, stride, n, to),
        BF16 => widen_run::<BFloat>(p, stride, n, to),
        I8 => widen_run::<Byte>(p, stride, n, to),
        _ => {
            for i in 0..n {
                *to.add(i) = int1(at(p, i.wrapping_mul(stride), size(dtype)), dtype) as f32;
            }
        }
    }
}

/// Copies `n` elements of any type, `stride` apart, to contiguous i32 (floats truncate and saturate).
#[inline(never)]
pub unsafe fn read_i32(p: *const u8, dtype: u32, stride: usize, n: usize, to: *mut i32) {
    let bytes = size(dtype);
    if dtype >= I32 {
        for i in 0..n {
            *to.add(i) = int1(at(p, i.wrapping_mul(stride), bytes), dtype);
        }
        return;
    }
    read_f32(p, dtype, stride, n, to as *mut f32);
    for i in 0..n {
        *to.add(i) = *(to as *const f32).add(i) as i32;
    }
}

/// Writes `n` contiguous f32 as elements of any type, `stride` apart: halves round, integers truncate, bool is ≠ 0.
#[inline(never)]
pub unsafe fn write_f32(from: *const f32, n: usize, p: *mut u8, dtype: u32, stride: usize) {
    let bytes = size(dtype);
    for i in 0..n {
        let x = *from.add(i);
        let q = at_mut(p, i.wrapping_mul(stride), bytes);
        match dtype {
            F32 => *(q as *mut f32) = x,
            F16 => *(q as *mut u16) = to_half(x),
            BF16 => *(q as *mut u16) = to_bfloat(x),
            I32 => *(q as *mut i32) = x as i32,
            I8 | U8 => *q = x as i32 as u8,
            _ => *q = (x != 0.0) as u8,
        }
    }
}

/// Writes `n` contiguous i32 as elements of any type, `stride` apart: narrow integers wrap, bool is ≠ 0.
#[inline(never)]
pub unsafe fn write_i32(from: *const i32, n: usize, p: *mut u8, dtype: u32, stride: usize) {
    let bytes = size(dtype);
    for i in 0..n {
        let x = *from.add(i);
        let q = at_mut(p, i.wrapping_mul(stride), bytes);
        match dtype {
            F32 => *(q as *mut f32) = x as f32,
            F16 => *(q as *mut u16) = to_half(x as f32),
            BF16 => *(q as *mut u16) = to_bfloat(x as f32),
            I32 => *(q as *mut i32) = x,
            I8 | U8 => *q = x as u8,
            _ => *q = (x != 0) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_round_trip() {
        for h in 0..=u16::MAX {
            let x = unsafe { Half::load1(&h as *const u16 as *const u8, 0) };
            let special = h & 0x7c00 == 0x7c00;
            if special && h & 0x3ff != 0 {
                assert!(x.is_nan());
            } else {
                assert_eq!(to_half(x), h);
                let exponent = (h >> 10 & 31) as i32;
                let fraction = (h & 0x3ff) as f64;
                let scale = if exponent == 0 {
                    fraction / 1024.0 * 2f64.powi(-14)
                } else {
                    (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15)
                };
                if !special {
                    assert_eq!(x.abs() as f64, scale);
                }
            }
        }
        assert_eq!(to_half(65519.0), 0x7bff);
        assert_eq!(to_half(65520.0), 0x7c00);
        assert_eq!(to_bfloat(1.003_906_2), 0x3f80);
        assert_eq!(to_bfloat(1.011_718_8), 0x3f82);
    }
}
