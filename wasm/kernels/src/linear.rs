//! `out (M, O) = x (M, I) · weight (O, I)ᵀ + bias (O)`, weights in any float type.
//!
//! Over the naive triple loop: 3×4 register tiles of dot products (see dot.rs); the contraction is cut so that
//! four weight rows and three x rows stay in the first-level cache; half-width weights are widened in registers
//! for few rows, and once per panel into scratch memory where many rows share them. Every path does the same
//! arithmetic in the same order, so the result of a row does not depend on M.
use crate::dot::{part_floats, Nt};
use crate::dtype::{at, at_mut, read_f32, size, BFloat, Half, Single, BF16, F32};

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
    let part = scratch.add(n.next_multiple_of(4));
    let panel = if inner > k_block {
        part.add(part_floats(m, n))
    } else {
        part
    };
    let bytes = size(p.weight_dtype);
    let mut k0 = 0;
    loop {
        let k = (inner - k0).min(k_block);
        let weight = at(at(p.weight, col.wrapping_mul(p.ldw as usize), bytes), k0, bytes);
        let mut t = Nt {
            a: at(at(p.x, row.wrapping_mul(p.ldx as usize), 4), k0, 4),
            lda: p.ldx as usize,
            m,
            b: weight,
            ldb: p.ldw as usize,
            n,
            k,
            part,
            first: k0 == 0,
            last: k0 + k == inner,
            c: at_mut(at_mut(p.out, row.wrapping_mul(p.o as usize), 4), col, 4),
            ldc: p.o as usize,
            bias,
        };
        if p.weight_dtype != F32 && m >= WIDEN_ROWS {
            for j in 0..n {
                let from = at(weight, j.wrapping_mul(p.ldw as usize), bytes);
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
