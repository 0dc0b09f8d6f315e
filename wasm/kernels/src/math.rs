//! Elementary functions on four lanes, written out so that no engine's libm decides a bit.
//!
//! Errors are bounded by the tests at the end; sources are named per function.
use crate::simd::*;

pub const LOG2_E: f32 = core::f32::consts::LOG2_E;
pub const LN_2: f32 = core::f32::consts::LN_2;

/// Horner's scheme, highest coefficient first.
#[inline(always)]
fn horner<const N: usize>(x: V, c: [f32; N]) -> V {
    let mut p = splat(c[0]);
    for &k in &c[1..] {
        p = madd(p, x, splat(k));
    }
    p
}

/// 1.5·2²³ plus the exponent bias: adding it leaves `round(x) + 127` in the low bits of the sum.
const ROUND_BIASED: f32 = 12_582_912.0 + 127.0;

/// A vector constant that loops keep in a register: V8 builds a `v128.const` anew, with three or four
/// instructions, at each use, and LLVM folds any splat it can see into one.
#[inline(always)]
pub fn held(x: f32) -> V {
    core::hint::black_box(splat(x))
}

/// `2^x` for `x ≤ 0`, and above up to 127; below −126.5, −∞ included, it is exactly 0, which is what masked scores need.
/// Minimax polynomial of degree 5 on [−½, ½], relative error 1.6e-7 (Remez).
#[derive(Clone, Copy)]
pub struct Exp2Neg {
    floor: V,
    round: V,
    c: [V; 6],
}

impl Exp2Neg {
    #[inline(always)]
    pub fn new() -> Self {
        Exp2Neg {
            floor: held(-127.0),
            round: held(ROUND_BIASED),
            c: [
                held(0.001_327_647_2),
                held(0.009_675_541),
                held(0.055_507_13),
                held(0.240_221_2),
                held(0.693_146_94),
                held(1.0),
            ],
        }
    }

    #[inline(always)]
    pub fn of(&self, x: V) -> V {
        let x = at_least(x, self.floor);
        let t = add(x, self.round);
        let f = sub(x, sub(t, self.round));
        let mut p = self.c[0];
        for &c in &self.c[1..] {
            p = madd(p, f, c);
        }
        mul(p, shl::<23>(t))
    }
}

/// `2^x` for `x ≤ 0`, see [`Exp2Neg`].
#[inline(always)]
pub fn exp2_neg(x: V) -> V {
    Exp2Neg::new().of(x)
}

/// Cody-Waite reduction by ln 2 and the polynomial of Cephes' expf: `(e^r, round(x/ln 2) in the low bits)`.
#[inline(always)]
fn exp_parts(x: V, round: V, c: &[V; 10]) -> (V, V) {
    let t = madd(x, c[0], round);
    let n = sub(t, round);
    let r = madd(n, c[1], madd(n, c[2], x));
    let mut p = c[3];
    for &k in &c[4..9] {
        p = madd(p, r, k);
    }
    (add(madd(mul(r, r), p, r), c[9]), t)
}

const EXP: [f32; 10] = [
    LOG2_E,
    2.121_944_4e-4,
    -0.693_359_4,
    1.987_569_1e-4,
    1.398_2e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    0.166_666_65,
    0.5,
    1.0,
];

/// `e^x` for `x ≤ 0`; below −87.7, −∞ included, it is exactly 0.
#[derive(Clone, Copy)]
pub struct ExpNeg {
    floor: V,
    round: V,
    c: [V; 10],
}

impl ExpNeg {
    #[inline(always)]
    pub fn new() -> Self {
        ExpNeg {
            floor: held(-88.0),
            round: held(ROUND_BIASED),
            c: EXP.map(held),
        }
    }

    #[inline(always)]
    pub fn of(&self, x: V) -> V {
        let (p, t) = exp_parts(at_least(x, self.floor), self.round, &self.c);
        mul(p, shl::<23>(t))
    }
}

/// `e^x` for `x ≤ 0`, see [`ExpNeg`].
#[inline(always)]
pub fn exp_neg(x: V) -> V {
    ExpNeg::new().of(x)
}

/// `e^x`, with gradual underflow and overflow to infinity.
#[inline(always)]
pub fn exp(x: V) -> V {
    let x = at_most(at_least(x, splat(-104.0)), splat(89.0));
    let (p, t) = exp_parts(x, splat(12_582_912.0), &EXP.map(splat));
    // Two factors, because 2^n alone leaves the range of f32 before p·2^n does.
    let n = subi(t, splati(0x4b40_0000));
    let half = subi(shr::<1>(addi(n, splati(256))), splati(128));
    let rest = subi(n, half);
    let two = |n: V| shl::<23>(addi(n, splati(127)));
    mul(mul(p, two(half)), two(rest))
}

/// `e^x` for −87 ≤ x ≤ 88, constant below and infinite above.
#[inline(always)]
fn exp_within(x: V) -> V {
    let x = at_most(at_least(x, splat(-87.0)), splat(89.0));
    let (p, t) = exp_parts(x, splat(ROUND_BIASED), &EXP.map(splat));
    mul(p, shl::<23>(t))
}

/// Natural logarithm (Cephes' logf).
#[inline(always)]
pub fn log(x: V) -> V {
    let tiny = lt(x, splat(f32::MIN_POSITIVE));
    let y = select(tiny, mul(x, splat(8_388_608.0)), x);
    let e = subi(shr::<23>(y), splati(126));
    let e = sub(from_int(e), and(tiny, splat(23.0)));
    let m = or(and(y, splati(0x007f_ffff)), splati(0x3f00_0000)); // [½, 1)
    let small = lt(m, splat(core::f32::consts::FRAC_1_SQRT_2));
    let e = sub(e, and(small, splat(1.0)));
    let m = sub(add(m, and(small, m)), splat(1.0));
    let z = mul(m, m);
    let p = horner(
        m,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let r = madd(e, splat(-2.121_944_4e-4), mul(mul(m, z), p));
    let r = madd(e, splat(0.693_359_4), add(m, madd(z, splat(-0.5), r)));
    let r = select(eq(x, splat(0.0)), splat(f32::NEG_INFINITY), r);
    let r = select(eq(x, splat(f32::INFINITY)), x, r);
    select(or(lt(x, splat(0.0)), ne(x, x)), splat(f32::NAN), r)
}

/// Natural logarithm of one number.
pub fn log1(x: f32) -> f32 {
    extract::<0>(log(splat(x)))
}

/// `2^x` of one number `≤ 0`.
pub fn exp2_neg1(x: f32) -> f32 {
    extract::<0>(exp2_neg(splat(x)))
}

/// `e^x` of one number `≤ 0`.
pub fn exp_neg1(x: f32) -> f32 {
    extract::<0>(exp_neg(splat(x)))
}

/// Hyperbolic tangent (Cephes' tanhf): a polynomial near 0, `1 − 2/(e^{2x}+1)` elsewhere.
#[inline(always)]
pub fn tanh(x: V) -> V {
    let a = abs(x);
    let z = mul(x, x);
    let p = horner(
        z,
        [
            -5.704_988_7e-3,
            2.063_909e-2,
            -5.373_971_5e-2,
            1.333_144_2e-1,
            -3.333_328e-1,
        ],
    );
    let near = madd(mul(p, z), x, x);
    let e = exp_within(add(a, a));
    let far = sub(splat(1.0), div(splat(2.0), add(e, splat(1.0))));
    let far = or(far, and(x, splati(i32::MIN)));
    let r = select(lt(a, splat(0.625)), near, far);
    select(ne(x, x), x, r)
}

/// `1 / (1 + e^{−x})`.
#[inline(always)]
pub fn sigmoid(x: V) -> V {
    div(splat(1.0), add(splat(1.0), exp_within(neg(x))))
}

/// Error function: the rational approximation of Eigen and XLA on [−4, 4], ±1 outside.
#[inline(always)]
pub fn erf(y: V) -> V {
    let x = at_most(at_least(y, splat(-4.0)), splat(4.0));
    let z = mul(x, x);
    let p = horner(
        z,
        [
            -2.726_142_4e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_6e-5,
            -7.349_906e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let q = horner(
        z,
        [
            -1.456_607_2e-5,
            -2.133_740_6e-4,
            -1.682_827e-3,
            -7.373_329e-3,
            -1.426_473_9e-2,
        ],
    );
    // Exactly ±1 there, or GELU's x·(1 + erf) would grow again for very negative x.
    let far = or(and(y, splati(i32::MIN)), splat(1.0));
    select(gt(abs(y), splat(3.999_999)), far, div(mul(x, p), q))
}
