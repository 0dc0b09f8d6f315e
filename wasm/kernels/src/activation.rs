//! The functions of the elementwise kernels, over contiguous runs.
use crate::math::*;
use crate::simd::*;

/// Elements that are done at a time: four vectors share the constants of a function, which V8 would build anew for each.
const STEP: usize = 16;

/// `out = f(x)` over contiguous f32.
#[inline(always)]
pub unsafe fn each1(x: *const f32, out: *mut f32, n: usize, f: impl Fn(V) -> V) {
    steps([x], out, n, |[x], out| store(out, f(load(x))));
}

/// `out = f(a, b)` over contiguous f32.
#[inline(always)]
unsafe fn each2(a: *const f32, b: *const f32, out: *mut f32, n: usize, f: impl Fn(V, V) -> V) {
    steps([a, b], out, n, |[a, b], out| store(out, f(load(a), load(b))));
}

/// Calls `each` for every vector. What is left of the last step is done in a place of its own, by the same code.
#[inline(always)]
unsafe fn steps<const N: usize>(
    from: [*const f32; N],
    out: *mut f32,
    n: usize,
    each: impl Fn([*const f32; N], *mut f32),
) {
    let mut rest = [[0.0; STEP]; N];
    let mut i = 0;
    while i < n {
        let whole = n - i >= STEP;
        let (mut x, mut to) = (from.map(|p| p.add(i)), out.add(i));
        if !whole {
            for (rest, x) in rest.iter_mut().zip(&mut x) {
                copy(*x, rest.as_mut_ptr(), n - i);
                *x = rest.as_ptr();
            }
            to = rest[0].as_mut_ptr();
        }
        for v in (0..STEP).step_by(4) {
            each(x.map(|p| p.add(v)), to.add(v));
        }
        if !whole {
            copy(to, out.add(i), n - i);
        }
        i += STEP;
    }
}

#[inline(never)]
unsafe fn copy(from: *const f32, to: *mut f32, n: usize) {
    core::ptr::copy_nonoverlapping(from, to, n);
}

fn silu(x: V) -> V {
    mul(x, sigmoid(x))
}

fn half_plus(x: V, t: V) -> V {
    mul(mul(splat(0.5), x), add(splat(1.0), t))
}

fn gelu_tanh(x: V) -> V {
    let cube = mul(mul(x, x), x);
    let u = mul(splat(0.797_884_6), add(x, mul(splat(0.044_715), cube)));
    half_plus(x, tanh(u))
}

/// `out = op(x)`; the numbers are those of `kernels.ts`.
#[inline(never)]
pub unsafe fn unary_run(op: u32, x: *const f32, out: *mut f32, n: usize) {
    match op {
        0 => core::ptr::copy(x, out, n),
        1 => each1(x, out, n, neg),
        2 => each1(x, out, n, exp),
        3 => each1(x, out, n, log),
        4 => each1(x, out, n, tanh),
        5 => each1(x, out, n, sigmoid),
        6 => each1(x, out, n, sqrt),
        7 => each1(x, out, n, silu),
        8 => each1(x, out, n, |x| {
            half_plus(x, erf(mul(x, splat(core::f32::consts::FRAC_1_SQRT_2))))
        }),
        9 => each1(x, out, n, gelu_tanh),
        10 => each1(x, out, n, |x| mul(x, sigmoid(mul(x, splat(1.702))))),
        _ => each1(x, out, n, |x| at_least(x, splat(0.0))),
    }
}

/// `out = op(a, b)`, on f32 or i32; the numbers are those of `kernels.ts`.
#[inline(never)]
pub unsafe fn binary_run(op: u32, ints: bool, a: *const f32, b: *const f32, out: *mut f32, n: usize) {
    match (op, ints) {
        (0, false) => each2(a, b, out, n, add),
        (1, false) => each2(a, b, out, n, sub),
        (2, false) => each2(a, b, out, n, mul),
        (3, _) => each2(a, b, out, n, div),
        (4, false) => each2(a, b, out, n, max),
        (0, true) => each2(a, b, out, n, addi),
        (1, true) => each2(a, b, out, n, subi),
        (2, true) => each2(a, b, out, n, muli),
        (4, true) => each2(a, b, out, n, maxi),
        _ => each2(a, b, out, n, |a, b| mul(silu(a), b)),
    }
}
