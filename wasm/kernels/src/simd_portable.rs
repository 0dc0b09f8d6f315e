//! The vectors of `simd.rs` in plain Rust, so that kernels can be tested on the host.
#![allow(dead_code)]

/// Four f32 or i32 lanes.
#[derive(Clone, Copy)]
pub struct V(pub [f32; 4]);

fn each2(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    V([
        f(a.0[0], b.0[0]),
        f(a.0[1], b.0[1]),
        f(a.0[2], b.0[2]),
        f(a.0[3], b.0[3]),
    ])
}

fn each(a: V, f: impl Fn(f32) -> f32) -> V {
    each2(a, a, |x, _| f(x))
}

fn int2(a: V, b: V, f: impl Fn(i32, i32) -> i32) -> V {
    each2(a, b, |x, y| {
        f32::from_bits(f(x.to_bits() as i32, y.to_bits() as i32) as u32)
    })
}

fn flag(x: bool) -> f32 {
    f32::from_bits(if x { u32::MAX } else { 0 })
}

pub fn add(a: V, b: V) -> V {
    each2(a, b, |x, y| x + y)
}
pub fn sub(a: V, b: V) -> V {
    each2(a, b, |x, y| x - y)
}
pub fn mul(a: V, b: V) -> V {
    each2(a, b, |x, y| x * y)
}
pub fn div(a: V, b: V) -> V {
    each2(a, b, |x, y| x / y)
}
pub fn max(a: V, b: V) -> V {
    each2(a, b, |x, y| {
        if x.is_nan() || y.is_nan() {
            f32::NAN
        } else {
            x.max(y)
        }
    })
}
pub fn pmax(a: V, b: V) -> V {
    each2(a, b, |x, y| if x < y { y } else { x })
}
pub fn at_least(x: V, floor: V) -> V {
    pmax(x, floor)
}
pub fn at_most(x: V, ceiling: V) -> V {
    each2(x, ceiling, |x, y| if y < x { y } else { x })
}
pub fn neg(a: V) -> V {
    each(a, |x| -x)
}
pub fn abs(a: V) -> V {
    each(a, |x| f32::from_bits(x.to_bits() & 0x7fff_ffff))
}
pub fn sqrt(a: V) -> V {
    each(a, libm::sqrtf)
}
pub fn gt(a: V, b: V) -> V {
    each2(a, b, |x, y| flag(x > y))
}
pub fn lt(a: V, b: V) -> V {
    each2(a, b, |x, y| flag(x < y))
}
pub fn eq(a: V, b: V) -> V {
    each2(a, b, |x, y| flag(x == y))
}
pub fn ne(a: V, b: V) -> V {
    each2(a, b, |x, y| flag(x != y))
}
pub fn and(a: V, b: V) -> V {
    int2(a, b, |x, y| x & y)
}
pub fn or(a: V, b: V) -> V {
    int2(a, b, |x, y| x | y)
}
pub fn andnot(a: V, b: V) -> V {
    int2(a, b, |x, y| x & !y)
}
pub fn addi(a: V, b: V) -> V {
    int2(a, b, i32::wrapping_add)
}
pub fn subi(a: V, b: V) -> V {
    int2(a, b, i32::wrapping_sub)
}
pub fn muli(a: V, b: V) -> V {
    int2(a, b, i32::wrapping_mul)
}
pub fn maxi(a: V, b: V) -> V {
    int2(a, b, i32::max)
}
pub fn gti(a: V, b: V) -> V {
    int2(a, b, |x, y| -((x > y) as i32))
}
pub fn lti(a: V, b: V) -> V {
    int2(a, b, |x, y| -((x < y) as i32))
}
pub fn eqi(a: V, b: V) -> V {
    int2(a, b, |x, y| -((x == y) as i32))
}
pub fn to_int(a: V) -> V {
    each(a, |x| f32::from_bits(x as i32 as u32))
}
pub fn from_int(a: V) -> V {
    each(a, |x| x.to_bits() as i32 as f32)
}
pub fn madd(a: V, b: V, c: V) -> V {
    add(mul(a, b), c)
}
pub fn select(mask: V, a: V, b: V) -> V {
    or(and(a, mask), andnot(b, mask))
}
pub fn any(mask: V) -> bool {
    mask.0.iter().any(|x| x.to_bits() != 0)
}
pub fn splat(x: f32) -> V {
    V([x; 4])
}
pub fn splati(x: i32) -> V {
    V([f32::from_bits(x as u32); 4])
}
pub fn vec4(x: [f32; 4]) -> V {
    V(x)
}
pub fn vec4i(x: [i32; 4]) -> V {
    V(x.map(|i| f32::from_bits(i as u32)))
}
pub fn shl<const N: u32>(a: V) -> V {
    each(a, |x| f32::from_bits(x.to_bits() << N))
}
pub fn shr<const N: u32>(a: V) -> V {
    each(a, |x| f32::from_bits(x.to_bits() >> N))
}
pub fn lane<const I: usize>(a: V) -> V {
    V([a.0[I]; 4])
}
pub fn low_then_high(a: V, b: V) -> V {
    V([a.0[0], a.0[1], b.0[2], b.0[3]])
}
pub fn even_and_odd(a: V, b: V) -> V {
    V([a.0[0], b.0[1], a.0[2], b.0[3]])
}
pub fn zip_low(a: V, b: V) -> V {
    V([a.0[0], b.0[0], a.0[1], b.0[1]])
}
pub fn zip_high(a: V, b: V) -> V {
    V([a.0[2], b.0[2], a.0[3], b.0[3]])
}
pub fn low_halves(a: V, b: V) -> V {
    V([a.0[0], a.0[1], b.0[0], b.0[1]])
}
pub fn high_halves(a: V, b: V) -> V {
    V([a.0[2], a.0[3], b.0[2], b.0[3]])
}
pub fn extract<const I: usize>(a: V) -> f32 {
    a.0[I]
}
pub unsafe fn load(p: *const f32) -> V {
    V((p as *const [f32; 4]).read_unaligned())
}
pub unsafe fn store(p: *mut f32, v: V) {
    (p as *mut [f32; 4]).write_unaligned(v.0)
}
pub unsafe fn load_splat(p: *const f32) -> V {
    splat(p.read_unaligned())
}
pub unsafe fn load_u16x4(p: *const u16) -> V {
    vec4i((p as *const [u16; 4]).read_unaligned().map(i32::from))
}
pub unsafe fn load_i16x4(p: *const i16) -> V {
    vec4i((p as *const [i16; 4]).read_unaligned().map(i32::from))
}
pub unsafe fn load_i8x4(p: *const i8) -> V {
    vec4i((p as *const [i8; 4]).read().map(i32::from))
}
pub unsafe fn load_i8x8(p: *const i8) -> [V; 2] {
    [load_i8x4(p), load_i8x4(p.add(4))]
}
pub fn low_above_zeros(a: V) -> V {
    let [x, y] = [a.0[0].to_bits(), a.0[1].to_bits()];
    V([x << 16, x & 0xffff_0000, y << 16, y & 0xffff_0000].map(f32::from_bits))
}
pub fn high_above_zeros(a: V) -> V {
    low_above_zeros(V([a.0[2], a.0[3], 0.0, 0.0]))
}
pub unsafe fn load_part(p: *const f32, n: usize) -> V {
    let mut v = [0.0; 4];
    for (i, x) in v.iter_mut().enumerate().take(n) {
        *x = p.add(i).read_unaligned();
    }
    V(v)
}
pub unsafe fn store_part(p: *mut f32, v: V, n: usize) {
    for (i, x) in v.0.iter().enumerate().take(n) {
        p.add(i).write_unaligned(*x);
    }
}
pub const WIDE_DOT: usize = 2;
pub fn dot(a: V, b: V, sum: V) -> V {
    let halves = |x: f32| [x.to_bits() as i16 as i32, (x.to_bits() >> 16) as i16 as i32];
    let products = each2(a, b, |x, y| {
        let (x, y) = (halves(x), halves(y));
        f32::from_bits((x[0] * y[0] + x[1] * y[1]) as u32)
    });
    addi(products, sum)
}
pub fn bits(mask: V) -> u32 {
    (0..4).fold(0, |a, i| a | (mask.0[i].to_bits() >> 31) << i)
}
pub unsafe fn load_bits16(p: *const u8) -> u32 {
    (0..16).fold(0, |a, i| a | u32::from(*p.add(i) != 0) << i)
}
