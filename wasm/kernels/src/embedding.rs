//! Rows of a (V, E) table picked by id, widened to f32.
//!
//! A gather is bound by memory; all there is over the naive loop is the vectorised widening.
use crate::dtype::{at, at_mut, read_f32, size};

#[repr(C)]
pub struct Embedding {
    /// (N) i32, `id_stride` apart.
    ids: *const i32,
    id_stride: u32,
    /// (V, E), rows `ldw` apart.
    weight: *const u8,
    dtype: u32,
    ldw: u32,
    /// (N, E) f32 contiguous.
    out: *mut f32,
    n: u32,
    e: u32,
    /// Ids of one part.
    rows: u32,
}

#[no_mangle]
pub unsafe extern "C" fn embedding(params: *const Embedding, _scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let e = p.e as usize;
    for r in (begin * p.rows) as usize..(end * p.rows).min(p.n) as usize {
        let id = *at(p.ids, r.wrapping_mul(p.id_stride as usize), 4) as usize;
        let from = at(p.weight, id.wrapping_mul(p.ldw as usize), size(p.dtype));
        read_f32(from, p.dtype, 1, e, at_mut(p.out, r.wrapping_mul(e), 4));
    }
}
