//! `out (…, M, P) = a (…, M, N) · b`, b as (…, N, P) or transposed as (…, P, N), over up to four batch dimensions.
//!
//! Over the naive triple loop: the register tiles of dot.rs and outer.rs, and blocks of the contraction that keep the panels
//! in cache. Operands that are not f32 are widened block by block into scratch memory.
use crate::dot::{part_floats, Nt};
use crate::dtype::{at, at_mut, read_f32, size, Single, F32};
use crate::outer::Nn;

#[repr(C)]
pub struct Matmul {
    a: *const u8,
    a_dtype: u32,
    lda: u32,
    b: *const u8,
    b_dtype: u32,
    ldb: u32,
    /// (batch…, M, P) f32 contiguous.
    out: *mut f32,
    transpose_b: u32,
    m: u32,
    n: u32,
    p: u32,
    row_block: u32,
    col_block: u32,
    k_block: u32,
    batch: [u32; 4],
    a_strides: [u32; 4],
    b_strides: [u32; 4],
}

/// The f32 form of a (rows, cols) block: itself, or a widened copy in `room`.
unsafe fn widened(
    p: *const u8,
    dtype: u32,
    ld: usize,
    rows: usize,
    cols: usize,
    room: *mut f32,
) -> (*const f32, usize) {
    if dtype == F32 {
        return (p as *const f32, ld);
    }
    for i in 0..rows {
        read_f32(
            at(p, i.wrapping_mul(ld), size(dtype)),
            dtype,
            1,
            cols,
            room.add(i * cols),
        );
    }
    (room as *const f32, cols)
}

#[no_mangle]
pub unsafe extern "C" fn matmul(params: *const Matmul, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let (cols, rows) = (p.p.div_ceil(p.col_block), p.m.div_ceil(p.row_block));
    for part in begin..end {
        let col = part % cols * p.col_block;
        let row = part / cols % rows * p.row_block;
        let batch = part / cols / rows;
        let (mut a, mut b, mut rest) = (0usize, 0usize, batch);
        for d in (0..4).rev() {
            let i = (rest % p.batch[d]) as usize;
            rest /= p.batch[d];
            a = a.wrapping_add(i.wrapping_mul(p.a_strides[d] as usize));
            b = b.wrapping_add(i.wrapping_mul(p.b_strides[d] as usize));
        }
        let out = at_mut(
            p.out,
            (batch as usize)
                .wrapping_mul(p.m as usize)
                .wrapping_mul(p.p as usize),
            4,
        );
        let a = at(p.a, a, size(p.a_dtype));
        let b = at(p.b, b, size(p.b_dtype));
        block(p, a, b, out, scratch as *mut f32, row as usize, col as usize);
    }
}

unsafe fn block(
    p: &Matmul,
    a: *const u8,
    b: *const u8,
    out: *mut f32,
    scratch: *mut f32,
    row: usize,
    col: usize,
) {
    let m = (p.m as usize - row).min(p.row_block as usize);
    let n = (p.p as usize - col).min(p.col_block as usize);
    let (inner, k_block) = (p.n as usize, p.k_block as usize);
    let (sa, sb) = (size(p.a_dtype), size(p.b_dtype));
    let (lda, ldb) = (p.lda as usize, p.ldb as usize);
    let ldc = p.p as usize;
    let c = at_mut(at_mut(out, row.wrapping_mul(ldc), 4), col, 4);
    let room_a = scratch.add(if inner > k_block { part_floats(m, n) } else { 0 });
    let room_b = room_a.add(m * k_block.min(inner));
    let mut k0 = 0;
    loop {
        let k = (inner - k0).min(k_block);
        let from = at(at(a, row.wrapping_mul(lda), sa), k0, sa);
        let (ap, lda) = widened(from, p.a_dtype, lda, m, k, room_a);
        if p.transpose_b != 0 {
            let from = at(at(b, col.wrapping_mul(ldb), sb), k0, sb);
            let (bp, ldb) = widened(from, p.b_dtype, ldb, n, k, room_b);
            let t = Nt {
                a: ap,
                lda,
                m,
                b: bp as *const u8,
                ldb,
                n,
                k,
                part: scratch,
                first: k0 == 0,
                last: k0 + k == inner,
                c,
                ldc,
                bias: core::ptr::null(),
            };
            t.run::<Single>();
        } else {
            let from = at(at(b, k0.wrapping_mul(ldb), sb), col, sb);
            let (bp, ldb) = widened(from, p.b_dtype, ldb, k, n, room_b);
            Nn {
                a: ap,
                lda,
                m,
                b: bp as *const u8,
                ldb,
                n,
                k,
                c,
                ldc,
                accumulate: k0 > 0,
            }
            .run::<Single>();
        }
        k0 += k;
        if k0 >= inner {
            return;
        }
    }
}
