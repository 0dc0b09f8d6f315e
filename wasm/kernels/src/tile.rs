//! Keys and values as the kernels read them: tiles of rows out of contiguous, paged or half-width storage.
//!
//! A kernel asks for rows `j..j+n` and gets f32 rows with a stride: the storage itself where it can be read in place,
//! else a widened copy in scratch memory. So a block table or another storage type is data, not another kernel.
use crate::attention::{fill, Attention};
use crate::dot::Nt;
use crate::dtype::{at, read_f32, size, BFloat, Half, Single, BF16, F32};
use crate::narrow::Rows;
use crate::outer::Nn;

/// Keys of one tile: with D = 64 its keys and values take 16 KiB each.
pub const TILE: usize = 64;

/// The keys or the values of one (batch, head).
pub struct Stream {
    base: *const u8,
    /// Elements between rows and between pages.
    row: usize,
    page_stride: usize,
    page: usize,
    table: *const i32,
    pub dtype: u32,
    width: usize,
}

/// Next multiple of four.
pub const fn up4(n: usize) -> usize {
    n.next_multiple_of(4)
}

impl Stream {
    pub fn new(p: &Attention, base: *const u8, strides: &[u32; 3], width: usize, b: usize, h: usize) -> Self {
        let paged = p.page != 0;
        let bytes = size(p.kv_dtype);
        let first = if paged {
            0
        } else {
            b.wrapping_mul(strides[0] as usize)
        };
        Stream {
            base: at(
                base,
                first.wrapping_add(h.wrapping_mul(strides[1] as usize)),
                bytes,
            ),
            row: strides[2] as usize,
            page_stride: strides[0] as usize,
            page: p.page as usize,
            table: at(p.table, b.wrapping_mul(p.table_stride as usize), 4),
            dtype: p.kv_dtype,
            width,
        }
    }

    /// Where row j lies, and how many rows from it on (at most n) lie behind each other.
    #[inline(always)]
    unsafe fn run(&self, j: usize, n: usize) -> (*const u8, usize) {
        let bytes = size(self.dtype);
        if self.page == 0 {
            return (at(self.base, j.wrapping_mul(self.row), bytes), n);
        }
        let (page, slot) = (j / self.page, j % self.page);
        let start = (*self.table.add(page) as usize).wrapping_mul(self.page_stride);
        let p = at(self.base, start.wrapping_add(slot.wrapping_mul(self.row)), bytes);
        (p, n.min(self.page - slot))
    }

    /// Rows `j..j+n` as f32 rows and their stride, padded with zeros to multiples of four both ways. They are read
    /// in place where they have that form; `dense` asks for rows without gaps.
    pub unsafe fn tile(&self, j: usize, n: usize, dense: bool, room: *mut f32) -> (*const f32, usize) {
        let wide = up4(self.width);
        let (p, len) = self.run(j, n);
        let whole = len == n && n.is_multiple_of(4) && self.width == wide;
        if self.dtype == F32 && whole && (!dense || self.row == wide) {
            return (p as *const f32, self.row);
        }
        let mut done = 0;
        while done < n {
            let (p, len) = self.run(j + done, n - done);
            for i in 0..len {
                let to = room.add((done + i) * wide);
                read_f32(
                    at(p, i.wrapping_mul(self.row), size(self.dtype)),
                    self.dtype,
                    1,
                    self.width,
                    to,
                );
                fill(to.add(self.width), wide - self.width, 0.0);
            }
            done += len;
        }
        fill(room.add(n * wide), (up4(n) - n) * wide, 0.0);
        (room as *const f32, wide)
    }

    /// `scores (m, n) = queries (m, width) · rows j..j+nᵀ`, widening in registers.
    pub unsafe fn scores(
        &self,
        queries: *const f32,
        ldq: usize,
        m: usize,
        j: usize,
        n: usize,
        scores: *mut f32,
        ld: usize,
    ) {
        let mut done = 0;
        while done < n {
            let (p, len) = self.run(j + done, n - done);
            let t = Nt {
                a: queries,
                lda: ldq,
                m,
                b: p,
                ldb: self.row,
                n: len,
                k: self.width,
                part: core::ptr::null_mut(),
                first: true,
                last: true,
                c: scores.add(done),
                ldc: ld,
                bias: core::ptr::null(),
            };
            match self.dtype {
                F32 => t.run::<Single>(),
                BF16 => t.run::<BFloat>(),
                _ => t.run::<Half>(),
            }
            done += len;
        }
    }

    /// `out (m, width) += weights (m, n) · rows j..j+n`, widening in registers. Keys are taken `TILE` at a time, so
    /// that an output row of accumulators meets values that are still in cache.
    pub unsafe fn weigh(
        &self,
        weights: *const f32,
        ldw: usize,
        m: usize,
        j: usize,
        n: usize,
        out: *mut f32,
        ld: usize,
    ) {
        let mut done = 0;
        while done < n {
            let (p, len) = self.run(j + done, (n - done).min(TILE));
            let t = Nn {
                a: weights.add(done),
                lda: ldw,
                m,
                b: p,
                ldb: self.row,
                n: self.width,
                k: len,
                c: out,
                ldc: ld,
                accumulate: true,
            };
            match self.dtype {
                F32 => t.run::<Single>(),
                BF16 => t.run::<BFloat>(),
                _ => t.run::<Half>(),
            }
            done += len;
        }
    }

    /// As [`Stream::scores`], for few query rows over keys that come from memory.
    pub unsafe fn narrow_scores(
        &self,
        queries: *const f32,
        ldq: usize,
        m: usize,
        j: usize,
        n: usize,
        scores: *mut f32,
        ld: usize,
    ) {
        let mut done = 0;
        while done < n {
            let (base, len) = self.run(j + done, n - done);
            let rows = Rows {
                base,
                stride: self.row,
                n: len & !3,
                width: self.width,
            };
            match self.dtype {
                F32 => rows.scores::<Single>(queries, ldq, m, scores.add(done), ld),
                BF16 => rows.scores::<BFloat>(queries, ldq, m, scores.add(done), ld),
                _ => rows.scores::<Half>(queries, ldq, m, scores.add(done), ld),
            }
            if rows.n < len {
                self.scores(
                    queries,
                    ldq,
                    m,
                    j + done + rows.n,
                    len - rows.n,
                    scores.add(done + rows.n),
                    ld,
                );
            }
            done += len;
        }
    }

    /// As [`Stream::weigh`], for few rows of weights over values that come from memory.
    pub unsafe fn narrow_weigh(
        &self,
        weights: *const f32,
        ldw: usize,
        m: usize,
        j: usize,
        n: usize,
        out: *mut f32,
        ld: usize,
    ) {
        let mut done = 0;
        while done < n {
            let (base, len) = self.run(j + done, n - done);
            let rows = Rows {
                base,
                stride: self.row,
                n: len & !3,
                width: self.width,
            };
            match self.dtype {
                F32 => rows.weigh::<Single>(weights.add(done), ldw, m, out, ld),
                BF16 => rows.weigh::<BFloat>(weights.add(done), ldw, m, out, ld),
                _ => rows.weigh::<Half>(weights.add(done), ldw, m, out, ld),
            }
            if rows.n < len {
                self.weigh(
                    weights.add(done + rows.n),
                    ldw,
                    m,
                    j + done + rows.n,
                    len - rows.n,
                    out,
                    ld,
                );
            }
            done += len;
        }
    }
}
