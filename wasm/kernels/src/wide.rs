//! Register tiles for engines that turn pairs of vectors into vectors of 256 bits ("revectorisation", which V8 has behind
//! a flag): four rows by sixteen columns, and eight by eight.
//!
//! Over six.rs: two vectors side by side are one there, so eight sums of 256 bits are enough, and a lane of A in all
//! lanes serves both halves. Such an engine pairs what is stored side by side and works its way back from there: sums
//! are stored 16 bytes apart, and nothing stands between the steps. Elsewhere sixteen sums do not fit the registers,
//! so a probe decides (probe_tiles), and both kinds of tile give the same bits: an element is one chain.
use crate::simd::*;

/// `sums (4, 16) = aᵀ · b`, or `+=`, with `steps` rows of a (4) and b (16).
#[inline(never)]
pub unsafe fn four_by_sixteen(a: *const f32, b: *const f32, steps: usize, sums: *mut f32, carry: bool) {
    product::<1, 4>(a, 16, b, steps, sums, carry);
}

/// `c (8, 8) = aᵀ · b` with `steps` rows of a (8), `next_a` bytes apart, and b (8).
#[inline(never)]
pub unsafe fn eight_by_eight(a: *const f32, next_a: usize, b: *const f32, steps: usize, c: *mut f32) {
    product::<2, 2>(a, next_a, b, steps, c, false);
}

/// Q times four rows and N vectors of columns.
#[inline(always)]
unsafe fn product<const Q: usize, const N: usize>(
    a: *const f32,
    next_a: usize,
    b: *const f32,
    steps: usize,
    c: *mut f32,
    carry: bool,
) {
    let mut acc = [[[splat(0.0); N]; 4]; Q];
    let at = |q: usize, r: usize, n: usize| c.add((4 * q + r) * 4 * N + 4 * n);
    if carry {
        each::<Q, N>(|q, r, n| acc[q][r][n] = load(at(q, r, n)));
    }
    let (mut a, mut b) = (a, b);
    for _ in 0..steps {
        let mut y = [splat(0.0); N];
        for (n, y) in y.iter_mut().enumerate() {
            *y = load(b.add(4 * n));
        }
        for q in 0..Q {
            let x = load(a.add(4 * q));
            let rows = [lane::<0>(x), lane::<1>(x), lane::<2>(x), lane::<3>(x)];
            for r in 0..4 {
                for n in 0..N {
                    acc[q][r][n] = madd(rows[r], y[n], acc[q][r][n]);
                }
            }
        }
        a = a.wrapping_byte_add(next_a);
        b = b.add(4 * N);
    }
    each::<Q, N>(|q, r, n| store(at(q, r, n), acc[q][r][n]));
}

#[inline(always)]
fn each<const Q: usize, const N: usize>(mut of: impl FnMut(usize, usize, usize)) {
    for q in 0..Q {
        for r in 0..4 {
            for n in 0..N {
                of(q, r, n);
            }
        }
    }
}
