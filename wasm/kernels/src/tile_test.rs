//! The register tiles against plain loops.
use crate::columns::{columns, Floats};
use crate::dot::{part_floats, Nt};
use crate::dtype::Single;
use crate::narrow::Rows;
use crate::outer::Nn;
use crate::scores::{Beside, Onto};
use crate::simd::{extract, splat};

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn nt(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, block: usize) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    let mut part = vec![0.0; part_floats(m, n)];
    let mut done = 0;
    while done < k {
        let t = Nt {
            a: a[done..].as_ptr(),
            lda: k,
            m,
            b: b[done..].as_ptr() as *const u8,
            ldb: k,
            n,
            k: block.min(k - done),
            part: part.as_mut_ptr(),
            first: done == 0,
            last: done + block >= k,
            c: c.as_mut_ptr(),
            ldc: n,
            bias: core::ptr::null(),
        };
        unsafe { t.run::<Single>() };
        done += block;
    }
    c
}

#[test]
fn a_row_is_the_same_in_any_batch_and_blocking() {
    let (n, k) = (7, 53);
    let (a, b) = (numbers(11 * k, 1), numbers(n * k, 2));
    let all = nt(&a, &b, 11, n, k, k);
    for m in 1..11 {
        for block in [4, 16, 64] {
            assert_eq!(nt(&a, &b, m, n, k, block), all[..m * n]);
        }
    }
}

#[test]
fn products_agree_with_loops() {
    for (m, n, k) in [(1, 33, 5), (4, 8, 16), (7, 13, 19), (1, 70, 3)] {
        let (a, b) = (numbers(m * k, 3), numbers(k * n, 4));
        let bt: Vec<f32> = (0..n * k).map(|x| b[x % k * n + x / k]).collect();
        let mut c = vec![1.0; m * n];
        let t = Nn {
            a: a.as_ptr(),
            lda: k,
            m,
            b: b.as_ptr() as *const u8,
            ldb: n,
            n,
            k,
            c: c.as_mut_ptr(),
            ldc: n,
            accumulate: true,
        };
        unsafe { t.run::<Single>() };
        let other = nt(&a, &bt, m, n, k, k);
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k).map(|x| a[i * k + x] as f64 * b[x * n + j] as f64).sum();
                assert!((c[i * n + j] as f64 - 1.0 - sum).abs() < 1e-5);
                assert!((other[i * n + j] as f64 - sum).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn products_with_eight_columns_agree_with_loops() {
    for m in (4..=44).step_by(4) {
        for (k, wide) in [1, 2, 3, 4, 7, 20]
            .into_iter()
            .flat_map(|k| [(k, false), (k, true)])
        {
            let ld = m + 3;
            let (a, b) = (numbers(k * ld, 5), numbers(8 * k, 6));
            let expected = |i: usize, j: usize| -> f64 {
                (0..k).map(|x| a[x * ld + i] as f64 * b[x * 8 + j] as f64).sum()
            };
            let mut c = vec![0.0; 8 * m];
            let mut beside = Beside::<Floats> {
                begin: [splat(0.0); 2],
                unit: [splat(1.0); 2],
                best: [splat(-1e9); 2],
                weights: None,
                of: core::marker::PhantomData,
            };
            unsafe {
                columns(
                    a.as_ptr(),
                    ld,
                    m,
                    b.as_ptr(),
                    k,
                    c.as_mut_ptr(),
                    &mut beside,
                    wide,
                )
            };
            let mut d = vec![1.0; 8 * m];
            let by = Some([splat(2.0), splat(3.0)]);
            unsafe {
                columns(
                    a.as_ptr(),
                    ld,
                    m,
                    b.as_ptr(),
                    k,
                    d.as_mut_ptr(),
                    &mut Onto { by },
                    wide,
                )
            };
            let mut largest = f32::MIN;
            for i in 0..m {
                for j in 0..8 {
                    let begin = if j < 4 { 2.0 } else { 3.0 };
                    assert!((c[i * 8 + j] as f64 - expected(i, j)).abs() < 1e-5);
                    assert!((d[i * 8 + j] as f64 - begin - expected(i, j)).abs() < 1e-5);
                }
                largest = largest.max(c[i * 8]);
            }
            assert_eq!(extract::<0>(beside.best[0]), largest);
        }
    }
}

#[test]
fn streamed_products_agree_with_loops_and_do_not_depend_on_their_company() {
    let (n, width, ld) = (24, 22, 24);
    let tile = numbers(n * width, 7);
    let rows = Rows {
        base: tile.as_ptr() as *const u8,
        stride: width,
        n,
        width,
    };
    let a = numbers(7 * width, 8);
    let w = numbers(7 * n, 9);
    let run = |m: usize| {
        let (mut scores, mut out) = (vec![0.0; m * n], vec![1.0; m * ld]);
        unsafe {
            rows.scores::<Single>(a.as_ptr(), width, m, scores.as_mut_ptr(), n);
            rows.weigh::<Single>(w.as_ptr(), n, m, out.as_mut_ptr(), ld);
        }
        (scores, out)
    };
    let (scores, out) = run(7);
    for m in 1..7 {
        let (s, o) = run(m);
        assert_eq!(s, scores[..m * n]);
        assert_eq!(o, out[..m * ld]);
    }
    for i in 0..7 {
        for j in 0..n {
            let sum: f64 = (0..width)
                .map(|x| a[i * width + x] as f64 * tile[j * width + x] as f64)
                .sum();
            assert!((scores[i * n + j] as f64 - sum).abs() < 1e-5);
        }
        for x in 0..width {
            let sum: f64 = (0..n)
                .map(|j| w[i * n + j] as f64 * tile[j * width + x] as f64)
                .sum();
            assert!((out[i * ld + x] as f64 - 1.0 - sum).abs() < 1e-5);
        }
    }
}
