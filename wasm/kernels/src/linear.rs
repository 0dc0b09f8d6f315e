//! `out (M, O) = x (M, I) · weight (O, I)ᵀ + bias (O)`, weights in any float type.
//!
//! Over the naive triple loop: few rows meet 3×4 register tiles of dot products (see dot.rs), which read the weight
//! where it lies; half-width weights are widened in registers, and from seven rows on once per panel into scratch
//! memory. Many rows are packed (see gemm.rs). Every path does the same arithmetic in the same order, so the result
//! of a row does not depend on M.
use crate::dot::{part_floats, Nt};
use crate::dtype::{at, at_mut, read_f32, size, BFloat, Half, Single, BF16, F32};
use crate::gemm::{Gemm, Narrow, Wide};
use crate::pack::Matrix;

#[repr(C)]
pub struct Linear {
    /// (M, I) f32, rows `ldx` apart.
    x: *const f32,
    ldx: u32,
    /// (O, I), rows `ldw` apart.
    weight: *const u8,
    ldw: u32,
    weight_dtype: u32,
    /// (O) or null.
    bias: *const u8,
    bias_dtype: u32,
    /// (M, O) f32 contiguous.
    out: *mut f32,
    m: u32,
    i: u32,
    o: u32,
    /// Rows and columns of one part, and contraction elements of one block.
    row_block: u32,
    col_block: u32,
    k_block: u32,
    /// What pack.rs made of x, or null where x is read as it lies (dot.rs): the sums are the same.
    packed: *const f32,
    /// Whether it was packed for wide tiles.
    wide: u32,
}

/// From this many rows on, widening a weight panel once costs less than widening it for each tile.
const WIDEN_ROWS: usize = 7;

#[no_mangle]
pub unsafe extern "C" fn linear(params: *const Linear, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let cols = p.o.div_ceil(p.col_block);
    for part in begin..end {
        let row = (part / cols * p.row_block) as usize;
        let col = (part % cols * p.col_block) as usize;
        let m = (p.m as usize - row).min(p.row_block as usize);
        let n = (p.o as usize - col).min(p.col_block as usize);
        block(p, scratch as *mut f32, row, m, col, n);
    }
}

unsafe fn block(p: &Linear, scratch: *mut f32, row: usize, m: usize, col: usize, n: usize) {
    let (inner, k_block) = (p.i as usize, p.k_block as usize);
    let mut bias = core::ptr::null();
    if !p.bias.is_null() {
        read_f32(at(p.bias, col, size(p.bias_dtype)), p.bias_dtype, 1, n, scratch);
        bias = scratch as *const f32;
    }
    let scratch = scratch.add(n.next_multiple_of(4));
    let bytes = size(p.weight_dtype);
    let x = at(p.x, row.wrapping_mul(p.ldx as usize), 4);
    let weight = at(p.weight, col.wrapping_mul(p.ldw as usize), bytes);
    let c = at_mut(at_mut(p.out, row.wrapping_mul(p.o as usize), 4), col, 4);
    let ldc = p.o as usize;
    if !p.packed.is_null() {
        let (a, ld) = (p.packed.add(row * inner.next_multiple_of(4)), p.ldw as usize);
        let b = Matrix {
            p: weight,
            dtype: p.weight_dtype,
            ld,
        };
        let gemm = Gemm {
            a,
            b,
            m,
            n,
            k: inner,
            k_block,
            c,
            ldc,
            bias,
            scratch,
        };
        if p.wide != 0 {
            gemm.run::<Wide>();
        } else {
            gemm.run::<Narrow>();
        }
        return;
    }
    let mut k0 = 0;
    loop {
        let k = (inner - k0).min(k_block);
        let mut t = Nt {
            a: at(x, k0, 4),
            lda: p.ldx as usize,
            m,
            b: at(weight, k0, bytes),
            ldb: p.ldw as usize,
            n,
            k,
            part: scratch,
            first: k0 == 0,
            last: k0 + k == inner,
            c,
            ldc,
            bias,
        };
        if p.weight_dtype != F32 && m >= WIDEN_ROWS {
            let panel = scratch.add(if inner > k_block { part_floats(m, n) } else { 0 });
            for j in 0..n {
                let from = at(at(weight, j.wrapping_mul(p.ldw as usize), bytes), k0, bytes);
                read_f32(from, p.weight_dtype, 1, k, panel.add(j * k));
            }
            t.b = panel as *const u8;
            t.ldb = k;
            t.run::<Single>();
        } else {
            match p.weight_dtype {
                F32 => t.run::<Single>(),
                BF16 => t.run::<BFloat>(),
                _ => t.run::<Half>(),
            }
        }
        k0 += k;
        if k0 >= inner {
            return;
        }
    }
}
