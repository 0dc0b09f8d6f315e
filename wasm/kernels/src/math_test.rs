//! The elementary functions against f64.
use crate::math::*;
use crate::simd::*;

/// Largest relative (or absolute, below `floor`) error of `f` against `g` on [a, b].
fn worst(f: impl Fn(V) -> V, g: impl Fn(f64) -> f64, a: f32, b: f32, floor: f64) -> f64 {
    let n = 200_000;
    let mut w = 0.0f64;
    for i in 0..=n {
        let x = a + (b - a) * (i as f32 / n as f32);
        let y = extract::<0>(f(splat(x))) as f64;
        let t = g(x as f64);
        w = w.max((y - t).abs() / t.abs().max(floor));
    }
    w
}

fn one(f: impl Fn(V) -> V, x: f32) -> f32 {
    extract::<3>(f(splat(x)))
}

#[test]
fn errors_are_bounded() {
    assert!(worst(exp2_neg, f64::exp2, -120.0, 0.0, 1e-37) < 2.3e-7);
    assert!(worst(exp_neg, f64::exp, -87.0, 0.0, 1e-38) < 1.6e-7);
    assert!(worst(exp, f64::exp, -87.0, 88.7, 1e-38) < 1.6e-7);
    assert!(worst(log, f64::ln, 1e-3, 10.0, 1e-1) < 2e-7);
    assert!(worst(log, f64::ln, 10.0, 1e30, 1e-1) < 2e-7);
    assert!(worst(tanh, f64::tanh, -12.0, 12.0, 1e-30) < 3e-7);
    assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -87.0, 86.0, 1e-37) < 3e-7);
    assert!(worst(erf, libm::erf, -5.0, 5.0, 1e-30) < 6e-7);
}

#[test]
fn edges_are_exact() {
    assert_eq!(one(exp2_neg, f32::NEG_INFINITY), 0.0);
    assert_eq!(one(exp2_neg, 0.0), 1.0);
    assert_eq!(one(exp_neg, f32::NEG_INFINITY), 0.0);
    assert_eq!(one(exp_neg, 0.0), 1.0);
    assert_eq!(one(exp, f32::NEG_INFINITY), 0.0);
    assert_eq!(one(exp, 89.0), f32::INFINITY);
    assert_eq!(one(exp, f32::INFINITY), f32::INFINITY);
    assert_eq!(one(log, 0.0), f32::NEG_INFINITY);
    assert_eq!(one(log, f32::INFINITY), f32::INFINITY);
    assert!(one(log, -1.0).is_nan());
    assert!((one(log, 1e-40) as f64 - (1e-40f32 as f64).ln()).abs() < 1e-5);
    assert_eq!(one(tanh, 100.0), 1.0);
    assert_eq!(one(tanh, f32::NEG_INFINITY), -1.0);
    assert_eq!(one(sigmoid, f32::NEG_INFINITY), 0.0);
    assert_eq!(one(sigmoid, f32::INFINITY), 1.0);
    for f in [exp2_neg, exp_neg, exp, log, tanh, sigmoid, erf] {
        assert!(one(f, f32::NAN).is_nan());
    }
}
