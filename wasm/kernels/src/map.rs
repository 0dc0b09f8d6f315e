//! Elementwise kernels: `unary` (which also copies and converts), `binary`, `where`.
//!
//! Over the naive loop: the caller merges dimensions, so most calls are one long row; contiguous f32 rows are
//! computed in place four lanes at a time, anything else goes through blocks of 1,024 elements in scratch memory,
//! so that dtypes and strides cost a conversion loop and not a kernel each.
use crate::activation::{binary_run, each1, unary_run};
use crate::dtype::*;
use crate::simd::{splati, subi};
use crate::strided::{as_f32, cell, count, Outer, Rows};

#[repr(C)]
pub struct Operand {
    data: *mut u8,
    dtype: u32,
    /// Elements; the last one belongs to the inner dimension.
    strides: [u32; 6],
}

#[repr(C)]
pub struct Map {
    op: u32,
    /// Compute in i32 instead of f32.
    ints: u32,
    outer: Outer,
    inner: u32,
    /// One part is `rows` rows by `chunk` elements.
    rows: u32,
    chunk: u32,
    out: Operand,
    a: Operand,
    b: Operand,
    c: Operand,
}

/// Elements handled between two visits to memory.
const BLOCK: usize = 1024;

/// One run of at most `n` elements of every operand.
struct Run {
    n: usize,
    out: *mut u8,
    a: *const u8,
    b: *const u8,
    c: *const u8,
}

unsafe fn each_run(p: &Map, block: usize, begin: u32, end: u32, mut f: impl FnMut(Run)) {
    let chunks = p.inner.div_ceil(p.chunk);
    let total = count(&p.outer);
    for part in begin..end {
        let first = part / chunks * p.rows;
        let start = (part % chunks * p.chunk) as usize;
        let stop = (start + p.chunk as usize).min(p.inner as usize);
        let mut rows = Rows::from(&p.outer, first);
        for _ in first..(first + p.rows).min(total) {
            let base = |o: &Operand, col| {
                cell(
                    o.data,
                    o.dtype,
                    rows.offset(&o.strides),
                    col,
                    o.strides[5] as usize,
                )
            };
            let mut col = start;
            while col < stop {
                let n = (stop - col).min(block);
                f(Run {
                    n,
                    out: base(&p.out, col) as *mut u8,
                    a: base(&p.a, col),
                    b: base(&p.b, col),
                    c: base(&p.c, col),
                });
                col += n;
            }
            rows.next();
        }
    }
}

impl Operand {
    unsafe fn f32(&self, p: *const u8, n: usize, room: *mut f32) -> *const f32 {
        as_f32(p, self.dtype, self.strides[5] as usize, n, room)
    }

    unsafe fn i32(&self, p: *const u8, n: usize, room: *mut f32) -> *const i32 {
        if self.dtype == I32 && self.strides[5] == 1 {
            return p as *const i32;
        }
        read_i32(p, self.dtype, self.strides[5] as usize, n, room as *mut i32);
        room as *const i32
    }

    /// Where results go: the output itself, or `room` until [`Operand::put`].
    fn target(&self, p: *mut u8, ints: bool, room: *mut f32) -> *mut f32 {
        let direct = self.dtype == if ints { I32 } else { F32 } && self.strides[5] == 1;
        if direct {
            p as *mut f32
        } else {
            room
        }
    }

    unsafe fn put(&self, from: *const f32, n: usize, p: *mut u8, ints: bool) {
        if from == p as *const f32 {
            return;
        }
        let stride = self.strides[5] as usize;
        if ints {
            write_i32(from as *const i32, n, p, self.dtype, stride);
        } else {
            write_f32(from, n, p, self.dtype, stride);
        }
    }
}

/// Moves elements of one type without looking at them.
unsafe fn move_run(
    bytes: usize,
    from: *const u8,
    from_stride: usize,
    to: *mut u8,
    to_stride: usize,
    n: usize,
) {
    if from_stride == 1 && to_stride == 1 {
        core::ptr::copy_nonoverlapping(from, to, n * bytes);
        return;
    }
    for i in 0..n {
        let from = at(from, i.wrapping_mul(from_stride), bytes);
        let to = at_mut(to, i.wrapping_mul(to_stride), bytes);
        match bytes {
            4 => *(to as *mut u32) = *(from as *const u32),
            2 => *(to as *mut u16) = *(from as *const u16),
            _ => *to = *from,
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn unary(params: *const Map, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let (room_a, room_out) = (scratch as *mut f32, (scratch as *mut f32).add(BLOCK));
    if p.op == 0 && p.a.dtype == p.out.dtype {
        let (from, to) = (p.a.strides[5] as usize, p.out.strides[5] as usize);
        each_run(p, usize::MAX, begin, end, |r| {
            move_run(size(p.a.dtype), r.a, from, r.out, to, r.n)
        });
        return;
    }
    let ints = p.ints != 0;
    each_run(p, BLOCK, begin, end, |r| {
        let to = p.out.target(r.out, ints, room_out);
        if ints {
            let x = p.a.i32(r.a, r.n, room_a) as *const f32;
            if p.op == 0 {
                core::ptr::copy(x, to, r.n);
            } else {
                each1(x, to, r.n, |x| subi(splati(0), x));
            }
        } else {
            unary_run(p.op, p.a.f32(r.a, r.n, room_a), to, r.n);
        }
        p.out.put(to, r.n, r.out, ints);
    });
}

#[no_mangle]
pub unsafe extern "C" fn binary(params: *const Map, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let room = scratch as *mut f32;
    let ints = p.ints != 0;
    each_run(p, BLOCK, begin, end, |r| {
        let to = p.out.target(r.out, ints, room.add(2 * BLOCK));
        let (a, b) = if ints {
            (
                p.a.i32(r.a, r.n, room) as *const f32,
                p.b.i32(r.b, r.n, room.add(BLOCK)) as *const f32,
            )
        } else {
            (p.a.f32(r.a, r.n, room), p.b.f32(r.b, r.n, room.add(BLOCK)))
        };
        binary_run(p.op, ints, a, b, to, r.n);
        p.out.put(to, r.n, r.out, ints);
    });
}

/// `out = c ? a : b`; c is bool.
#[export_name = "where"]
pub unsafe extern "C" fn choose(params: *const Map, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let room = scratch as *mut f32;
    let ints = p.ints != 0;
    each_run(p, BLOCK, begin, end, |r| {
        let to = p.out.target(r.out, ints, room.add(2 * BLOCK)) as *mut u32;
        let (a, b) = if ints {
            (
                p.a.i32(r.a, r.n, room) as *const u32,
                p.b.i32(r.b, r.n, room.add(BLOCK)) as *const u32,
            )
        } else {
            (
                p.a.f32(r.a, r.n, room) as *const u32,
                p.b.f32(r.b, r.n, room.add(BLOCK)) as *const u32,
            )
        };
        let stride = p.c.strides[5] as usize;
        for i in 0..r.n {
            let keep = *at(r.c, i.wrapping_mul(stride), 1) != 0;
            *to.add(i) = if keep { *a.add(i) } else { *b.add(i) };
        }
        p.out.put(to as *const f32, r.n, r.out, ints);
    });
}
