//! Products of 32 columns with quantised weights, in whole numbers: one way for each number of bits and instruction set.
use crate::quantized_simd::*;
use crate::simd::*;

/// Sums of 32 products each, of `R` rows of x and `C` times four rows of weights.
pub type Sums<const R: usize, const C: usize> = [[V; C]; R];

/// How 32 columns are multiplied. The sums are the same integers whichever it is.
pub trait Products {
    /// `x` points to the values of a group, `w` to those of a record.
    unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C>;
}

/// What the 64 in x + 64 adds, taken off: 64 · sums of the weights.
#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
unsafe fn without_64<const C: usize>(w: [*const u8; C]) -> [V; C] {
    w.map(|p| subi(splati(0), shl::<6>(load_i16x4(p.sub(8) as *const i16))))
}

/// What the 8 in the weights adds, taken off.
#[inline(always)]
unsafe fn without_8<const R: usize>(x: [*const u8; R]) -> [V; R] {
    x.map(|p| load_splat(p.sub(4) as *const f32))
}

#[cfg(target_feature = "relaxed-simd")]
mod relaxed {
    use super::*;

    /// 8 bits, pairs summed in 16 bits and then in 32.
    pub struct Eight;
    impl Products for Eight {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C> {
            let mut acc = [without_64(w); R];
            let ones = splat16(1);
            for s in 0..8 {
                let w = w.map(|p| load_bytes(p.add(s * 16)));
                for r in 0..R {
                    let x = load32_splat(x[r].add(s * 4));
                    for c in 0..C {
                        acc[r][c] = addi(acc[r][c], dot16(dot8(w[c], x), ones));
                    }
                }
            }
            acc
        }
    }

    /// 8 bits, where four products and their sum are one instruction.
    pub struct EightAtOnce;
    impl Products for EightAtOnce {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C> {
            let mut acc = [without_64(w); R];
            for s in 0..8 {
                let w = w.map(|p| load_bytes(p.add(s * 16)));
                for r in 0..R {
                    let x = load32_splat(x[r].add(s * 4));
                    for c in 0..C {
                        acc[r][c] = dot8_add(w[c], x, acc[r][c]);
                    }
                }
            }
            acc
        }
    }

    /// 4 bits: 16 products of −127…127 by 0…15 sum up within 16 bits.
    pub struct Four;
    impl Products for Four {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C> {
            let mut acc = [[splati(0); C]; R];
            let low = splat8(15);
            for s in 0..4 {
                let w = w.map(|p| load_bytes(p.add(s * 16)));
                for r in 0..R {
                    let x0 = load32_splat(x[r].add(s * 8));
                    let x1 = load32_splat(x[r].add(s * 8 + 4));
                    for c in 0..C {
                        let pairs = add16(dot8(x0, and(w[c], low)), dot8(x1, high_nibbles(w[c])));
                        acc[r][c] = add16(acc[r][c], pairs);
                    }
                }
            }
            let ones = splat16(1);
            let correction = without_8(x);
            for r in 0..R {
                acc[r] = acc[r].map(|a| addi(dot16(a, ones), correction[r]));
            }
            acc
        }
    }

    /// 4 bits, where four products and their sum are one instruction.
    pub struct FourAtOnce;
    impl Products for FourAtOnce {
        #[inline(always)]
        unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C> {
            let mut acc = without_8(x).map(|correction| [correction; C]);
            let low = splat8(15);
            for s in 0..4 {
                let w = w.map(|p| load_bytes(p.add(s * 16)));
                let (w0, w1) = (w.map(|w| and(w, low)), w.map(high_nibbles));
                for r in 0..R {
                    let x0 = load32_splat(x[r].add(s * 8));
                    let x1 = load32_splat(x[r].add(s * 8 + 4));
                    for c in 0..C {
                        acc[r][c] = dot8_add(x1, w1[c], dot8_add(x0, w0[c], acc[r][c]));
                    }
                }
            }
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
        unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C> {
            let (mut lo, mut hi) = ([[splati(0); C]; R], [[splati(0); C]; R]);
            for s in 0..8 {
                let w = w.map(|p| load_bytes(p.add(s * 16)));
                for r in 0..R {
                    let x = load64_splat(x[r].add(s * 8));
                    for c in 0..C {
                        add_four(&mut lo[r][c], &mut hi[r][c], w[c], x);
                    }
                }
            }
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
        unsafe fn of<const R: usize, const C: usize>(x: [*const u8; R], w: [*const u8; C]) -> Sums<R, C> {
            let (mut lo, mut hi) = ([[splati(0); C]; R], [[splati(0); C]; R]);
            let low = splat8(15);
            for s in 0..4 {
                let w = w.map(|p| load_bytes(p.add(s * 16)));
                for r in 0..R {
                    let x0 = load64_splat(x[r].add(s * 16));
                    let x1 = load64_splat(x[r].add(s * 16 + 8));
                    for c in 0..C {
                        add_four(&mut lo[r][c], &mut hi[r][c], and(w[c], low), x0);
                        add_four(&mut lo[r][c], &mut hi[r][c], high_nibbles(w[c]), x1);
                    }
                }
            }
            let correction = without_8(x);
            for r in 0..R {
                for c in 0..C {
                    lo[r][c] = addi(add_pairs(lo[r][c], hi[r][c]), correction[r]);
                }
            }
            lo
        }
    }
}
#[cfg(not(target_feature = "relaxed-simd"))]
pub use plain::*;
