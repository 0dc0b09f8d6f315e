//! The functions of the elementwise kernels, over contiguous runs.
use crate::math::*;
use crate::simd::*;

/// `out = f(x)` over contiguous f32.
#[inline(always)]
pub unsafe fn each1(x: *const f32, out: *mut f32, n: usize, f: impl Fn(V) -> V) {
    let mut i = 0;
    // Four at a time share the constants of f, which V8 would build anew for each.
    while i + 16 <= n {
        for u in [0, 4, 8, 12] {
            store(out.add(i + u), f(load(x.add(i + u))));
        }
        i += 16;
    }
    while i + 4 <= n {
        store(out.add(i), f(load(x.add(i))));
        i += 4;
    }
    if i < n {
        store_part(out.add(i), f(load_part(x.add(i), n - i)), n - i);
    }
}

/// `out = f(a, b)` over contiguous f32.
#[inline(always)]
unsafe fn each2(a: *const f32, b: *const f32, out: *mut f32, n: usize, f: impl Fn(V, V) -> V) {
    let mut i = 0;
    while i + 16 <= n {
        for u in [0, 4, 8, 12] {
            store(out.add(i + u), f(load(a.add(i + u)), load(b.add(i + u))));
        }
        i += 16;
    }
    while i + 4 <= n {
        store(out.add(i), f(load(a.add(i)), load(b.add(i))));
        i += 4;
    }
    if i < n {
        store_part(
            out.add(i),
            f(load_part(a.add(i), n - i), load_part(b.add(i), n - i)),
            n - i,
        );
    }
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
