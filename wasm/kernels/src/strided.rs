//! Where the rows of a strided tensor lie.
use crate::dtype::{at, read_f32, size, F32};

/// The leading dimensions of a tensor of rank ≤ 6; unused ones are 1. Everything but the last dimension.
pub type Outer = [u32; 5];

/// Walks the rows of [`Outer`] in row-major order without a division per row.
pub struct Rows<'a> {
    shape: &'a Outer,
    index: Outer,
}

impl<'a> Rows<'a> {
    pub fn from(shape: &'a Outer, mut row: u32) -> Self {
        let mut index = [0; 5];
        for d in (0..5).rev() {
            index[d] = row % shape[d];
            row /= shape[d];
        }
        Rows { shape, index }
    }

    /// Elements from the start to this row.
    #[inline(always)]
    pub fn offset(&self, strides: &[u32]) -> usize {
        let mut n = 0usize;
        for d in 0..5 {
            n = n.wrapping_add((self.index[d] as usize).wrapping_mul(strides[d] as usize));
        }
        n
    }

    #[inline(always)]
    pub fn next(&mut self) {
        for d in (0..5).rev() {
            self.index[d] += 1;
            if self.index[d] < self.shape[d] {
                return;
            }
            self.index[d] = 0;
        }
    }
}

/// Number of rows.
pub fn count(shape: &Outer) -> u32 {
    shape.iter().product()
}

/// `n` elements as contiguous f32: in place where they are that already, else a copy in `room`.
#[inline(always)]
pub unsafe fn as_f32(p: *const u8, dtype: u32, stride: usize, n: usize, room: *mut f32) -> *const f32 {
    if dtype == F32 && stride == 1 {
        return p as *const f32;
    }
    read_f32(p, dtype, stride, n, room);
    room
}

/// Start of a row, `col` elements of `stride` into it.
#[inline(always)]
pub fn cell(p: *const u8, dtype: u32, row: usize, col: usize, stride: usize) -> *const u8 {
    at(p, row.wrapping_add(col.wrapping_mul(stride)), size(dtype))
}
