//! Products of 32 columns with quantised weights, in whole numbers: one way for each number of bits and instruction set.
//!
//! Steps of four columns stand between branches that are never taken ([`Held::steps`]): without them LLVM keeps the loads
//! of all steps alive, more than there are registers, and spills (as in dot.rs).
use crate::math::held;
use crate::quantized_simd::*;
use crate::simd::*;

/// Sums of 32 products each, of `R` rows of x and `C` times four rows of weights.
pub type Sums<const R: usize, const C: usize> = [[V; C]; R];

/// What is made once before many products.
#[derive(Clone, Copy)]
pub struct Held {
    /// 1 in 16-bit lanes.
    #[cfg(target_feature = "relaxed-simd")]
    ones: V,
    /// 15 in bytes.
    low: V,
    /// Steps of a group: 8, which the compiler does not know.
    steps: u32,
}

impl Held {
    #[inline(always)]
    pub fn new() -> Self {
        Held {
            #[cfg(target_feature = "relaxed-simd")]
            ones: held(f32::from_bits(0x0001_0001)),
            low: held(f32::from_bits(0x0f0f_0f0f)),
            steps: core::hint::black_box(8),
        }
    }
}

/// How 32 columns are multiplied. The sums are the same integers whichever it is.
pub trait Products {
    /// `x` points to the values of a group of `R` rows (quantized_rows.rs), `w` to those of a record.
    unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], held: Held) -> Sums<R, C>;
}

/// Steps in their order, with a branch before all but the first.
macro_rules! steps {
    ($held:ident, $first:expr, $($n:literal $step:expr),*) => {
        'steps: {
            $first;
            $(
                if $held.steps == $n {
                    break 'steps;
                }
                $step;
            )*
        }
    };
}

/// What the 8 in the weights adds, taken off.
#[inline(always)]
unsafe fn without_8<const R: usize, const C: usize>(sums: &mut Sums<R, C>, x: *const u8) {
    for r in 0..R {
        let correction = load_splat((x as *const f32).sub(R).add(r));
        for c in 0..C {
            sums[r][c] = addi(sums[r][c], correction);
        }
    }
}

#[cfg(target_feature = "relaxed-simd")]
mod relaxed {
    use super::*;

    /// Words of step `s` of x, a word a row, each in all lanes.
    #[inline(always)]
    unsafe fn words<const R: usize>(x: *const u8, s: usize) -> [V; R] {
        if R < 4 {
            return core::array::from_fn(|r| load32_splat(x.add((s * R + r) * 4)));
        }
        let v = load_bytes(x.add(s * R * 4));
        core::array::from_fn(|r| match r {
            0 => lane::<0>(v),
            1 => lane::<1>(v),
            2 => lane::<2>(v),
            _ => lane::<3>(v),
        })
    }

    /// What the 64 in x + 64 adds, taken off: 64 · sums of the weights.
    #[inline(always)]
    unsafe fn without_64<const R: usize, const C: usize>(sums: &mut Sums<R, C>, w: [*const u8; C]) {
        for c in 0..C {
            let correction = shl::<6>(load_i16x4(w[c].sub(8) as *const i16));
            for r in 0..R {
                sums[r][c] = subi(sums[r][c], correction);
            }
        }
    }

    /// 8 bits, pairs summed in 16 bits and then in 32.
    pub struct Eight;
    impl Products for Eight {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], h: Held) -> Sums<R, C> {
            let mut acc = [[splati(0); C]; R];
            let mut step = |s: usize| {
                let w: [V; C] = core::array::from_fn(|c| load_bytes(w[c].add(s * 16)));
                let x = words::<R>(x, s);
                for r in 0..R {
                    for c in 0..C {
                        let product = dot16(dot8(w[c], x[r]), h.ones);
                        acc[r][c] = if s == 0 { product } else { addi(acc[r][c], product) };
                    }
                }
            };
            steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3), 4 step(4), 5 step(5), 6 step(6), 7 step(7));
            without_64(&mut acc, w);
            acc
        }
    }

    /// 8 bits, where four products and their sum are one instruction.
    pub struct EightAtOnce;
    impl Products for EightAtOnce {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], h: Held) -> Sums<R, C> {
            let mut acc = [[splati(0); C]; R];
            let mut step = |s: usize| {
                let w: [V; C] = core::array::from_fn(|c| load_bytes(w[c].add(s * 16)));
                let x = words::<R>(x, s);
                for r in 0..R {
                    for c in 0..C {
                        acc[r][c] = dot8_add(w[c], x[r], acc[r][c]);
                    }
                }
            };
            steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3), 4 step(4), 5 step(5), 6 step(6), 7 step(7));
            without_64(&mut acc, w);
            acc
        }
    }

    /// 4 bits: 16 products of −127…127 by 0…15 sum up within 16 bits.
    pub struct Four;
    impl Products for Four {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], h: Held) -> Sums<R, C> {
            let mut acc = [[splati(0); C]; R];
            if R == 1 {
                let mut step = |s: usize| {
                    let ([x0], [x1]) = (words::<1>(x, 2 * s), words::<1>(x, 2 * s + 1));
                    for c in 0..C {
                        let w = load_bytes(w[c].add(s * 16));
                        let pairs = add16(dot8(x0, and(w, h.low)), dot8(x1, and(shr::<4>(w), h.low)));
                        acc[0][c] = if s == 0 { pairs } else { add16(acc[0][c], pairs) };
                    }
                };
                steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3));
            } else {
                let mut raw = [h.ones; C];
                let mut step = |s: usize| {
                    if s & 1 == 0 {
                        raw = core::array::from_fn(|c| load_bytes(w[c].add(s * 8)));
                    }
                    let w = raw.map(|w| and(if s & 1 == 0 { w } else { shr::<4>(w) }, h.low));
                    let x = words::<R>(x, s);
                    for r in 0..R {
                        for c in 0..C {
                            let product = dot8(x[r], w[c]);
                            acc[r][c] = if s == 0 {
                                product
                            } else {
                                add16(acc[r][c], product)
                            };
                        }
                    }
                };
                steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3), 4 step(4), 5 step(5), 6 step(6), 7 step(7));
            }
            for r in 0..R {
                acc[r] = acc[r].map(|a| dot16(a, h.ones));
            }
            without_8(&mut acc, x);
            acc
        }
    }

    /// 4 bits, where four products and their sum are one instruction.
    pub struct FourAtOnce;
    impl Products for FourAtOnce {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], h: Held) -> Sums<R, C> {
            let mut acc = [[splati(0); C]; R];
            let mut raw = [h.ones; C];
            let mut step = |s: usize| {
                if s & 1 == 0 {
                    raw = core::array::from_fn(|c| load_bytes(w[c].add(s * 8)));
                }
                let w = raw.map(|w| and(if s & 1 == 0 { w } else { shr::<4>(w) }, h.low));
                let x = words::<R>(x, s);
                for r in 0..R {
                    for c in 0..C {
                        acc[r][c] = dot8_add(x[r], w[c], acc[r][c]);
                    }
                }
            };
            steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3), 4 step(4), 5 step(5), 6 step(6), 7 step(7));
            without_8(&mut acc, x);
            acc
        }
    }
}
#[cfg(target_feature = "relaxed-simd")]
pub use relaxed::*;

#[cfg(not(target_feature = "relaxed-simd"))]
mod plain {
    use super::*;

    /// Adds the products of four columns: `lo` and `hi` hold two sums for each of two rows of weights.
    #[inline(always)]
    fn add_four(lo: &mut V, hi: &mut V, w: V, x: V) {
        *lo = addi(*lo, dot16(widen_low(w), x));
        *hi = addi(*hi, dot16(widen_high(w), x));
    }

    /// 8 bits, widened to 16.
    pub struct Eight;
    impl Products for Eight {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], h: Held) -> Sums<R, C> {
            let (mut lo, mut hi) = ([[splati(0); C]; R], [[splati(0); C]; R]);
            let mut step = |s: usize| {
                let w: [V; C] = core::array::from_fn(|c| load_bytes(w[c].add(s * 16)));
                for r in 0..R {
                    let x = load64_splat(x.add((s * R + r) * 8));
                    for c in 0..C {
                        add_four(&mut lo[r][c], &mut hi[r][c], w[c], x);
                    }
                }
            };
            steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3), 4 step(4), 5 step(5), 6 step(6), 7 step(7));
            for r in 0..R {
                for c in 0..C {
                    lo[r][c] = add_pairs(lo[r][c], hi[r][c]);
                }
            }
            lo
        }
    }

    /// 4 bits, widened to 16.
    pub struct Four;
    impl Products for Four {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: *const u8, w: [*const u8; C], h: Held) -> Sums<R, C> {
            let (mut lo, mut hi) = ([[splati(0); C]; R], [[splati(0); C]; R]);
            let mut step = |s: usize| {
                let w: [V; C] = core::array::from_fn(|c| {
                    let w = load_bytes(w[c].add(s / 2 * 16));
                    and(if s & 1 == 0 { w } else { shr::<4>(w) }, h.low)
                });
                for r in 0..R {
                    let x = load64_splat(x.add((s * R + r) * 8));
                    for c in 0..C {
                        add_four(&mut lo[r][c], &mut hi[r][c], w[c], x);
                    }
                }
            };
            steps!(h, step(0), 1 step(1), 2 step(2), 3 step(3), 4 step(4), 5 step(5), 6 step(6), 7 step(7));
            for r in 0..R {
                for c in 0..C {
                    lo[r][c] = add_pairs(lo[r][c], hi[r][c]);
                }
            }
            without_8(&mut lo, x);
            lo
        }
    }
}
#[cfg(not(target_feature = "relaxed-simd"))]
pub use plain::*;
