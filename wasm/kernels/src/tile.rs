//! Keys and values as the kernels read them: tiles of rows out of contiguous, paged or half-width storage.
//!
//! A kernel asks for rows `j..j+n` and gets f32 rows with a stride: the storage itself where it can be read in place,
//! else a widened copy in scratch memory. So a block table, another storage type or the scales of int8 rows are data, not
//! another kernel. Length: every way rows are read stands here.
use crate::attention::{fill, Attention, Operand};
use crate::dot::Nt;
use crate::dtype::{at, at_mut, read_f32, size, BFloat, Byte, Half, Single, BF16, F32, I8};
use crate::narrow::Rows;
use crate::outer::Nn;
use crate::simd::*;

/// Keys of one tile: with D = 64 its keys and values take 16 KiB each.
pub const TILE: usize = 64;

/// The keys or the values of one (batch, head).
pub struct Stream {
    base: *const u8,
    /// One per row for int8 rows, whose values are element · scale; else null.
    scales: *const f32,
    /// Elements between rows and between pages, of rows and of scales.
    row: usize,
    page_stride: usize,
    scale_row: usize,
    scale_page: usize,
    page: usize,
    table: *const i32,
    pub dtype: u32,
    width: usize,
}

/// Rows that lie behind each other: the first of them, its scale, which of the rows asked for it is, and how many.
struct Run {
    p: *const u8,
    scales: *const f32,
    first: usize,
    len: usize,
}

/// What a product does with the rows of each element type.
macro_rules! by_type {
    ($dtype:expr, $call:ident . $method:ident ( $($args:expr),* )) => {
        match $dtype {
            F32 => $call.$method::<Single>($($args),*),
            BF16 => $call.$method::<BFloat>($($args),*),
            I8 => $call.$method::<Byte>($($args),*),
            _ => $call.$method::<Half>($($args),*),
        }
    };
}

/// Rows of weights that are multiplied by scales at a time.
const GROUP: usize = 8;

/// Next multiple of four.
pub const fn up4(n: usize) -> usize {
    n.next_multiple_of(4)
}

impl Stream {
    pub fn new(p: &Attention, of: &Operand, width: usize, b: usize, h: usize) -> Self {
        let bytes = size(p.kv_dtype);
        // A block table says where a sequence lies, so that its number in the batch does not.
        let place = |s: &[u32; 3]| {
            let batch = if p.page != 0 {
                0
            } else {
                b.wrapping_mul(s[0] as usize)
            };
            batch.wrapping_add(h.wrapping_mul(s[1] as usize))
        };
        Stream {
            base: at(of.rows, place(&of.strides), bytes),
            scales: at(of.scales, place(&of.scale_strides), 4),
            row: of.strides[2] as usize,
            page_stride: of.strides[0] as usize,
            scale_row: of.scale_strides[2] as usize,
            scale_page: of.scale_strides[0] as usize,
            page: p.page as usize,
            table: at(p.table, b.wrapping_mul(p.table_stride as usize), 4),
            dtype: p.kv_dtype,
            width,
        }
    }

    /// Where row j lies, and how many rows from it on (at most n) lie behind each other.
    #[inline(always)]
    unsafe fn run(&self, j: usize, n: usize) -> Run {
        let (page, slot, len) = match j.checked_div(self.page) {
            None => (0, j, n), // not in pages
            Some(page) => {
                let slot = j % self.page;
                (*self.table.add(page) as usize, slot, n.min(self.page - slot))
            }
        };
        let place = |page_stride: usize, row: usize| {
            page.wrapping_mul(page_stride)
                .wrapping_add(slot.wrapping_mul(row))
        };
        Run {
            p: at(self.base, place(self.page_stride, self.row), size(self.dtype)),
            scales: at(self.scales, place(self.scale_page, self.scale_row), 4),
            first: 0,
            len,
        }
    }

    /// Rows `j..j+n` by runs of at most `most`.
    #[inline(always)]
    unsafe fn runs(&self, j: usize, n: usize, most: usize, mut each: impl FnMut(Run)) {
        let mut done = 0;
        while done < n {
            let run = Run {
                first: done,
                ..self.run(j + done, (n - done).min(most))
            };
            done += run.len;
            each(run);
        }
    }

    /// Scale of row i of a run.
    #[inline(always)]
    unsafe fn scale(&self, run: &Run, i: usize) -> f32 {
        *at(run.scales, i.wrapping_mul(self.scale_row), 4)
    }

    /// Multiplies column i of `c (m, n)` by the scale of row i, into `to`.
    unsafe fn rescale(
        &self,
        run: &Run,
        c: *const f32,
        ldc: usize,
        n: usize,
        m: usize,
        to: *mut f32,
        ld: usize,
    ) {
        for i in 0..n {
            let scale = self.scale(run, i);
            for r in 0..m {
                *at_mut(to, r * ld + i, 4) = *at(c, r * ldc + i, 4) * scale;
            }
        }
    }

    /// Rows `j..j+n` as f32 rows and their stride, padded with zeros to multiples of four both ways. They are read
    /// in place where they have that form; `dense` asks for rows without gaps.
    pub unsafe fn tile(&self, j: usize, n: usize, dense: bool, room: *mut f32) -> (*const f32, usize) {
        let wide = up4(self.width);
        let run = self.run(j, n);
        let whole = run.len == n && n.is_multiple_of(4) && self.width == wide;
        if self.dtype == F32 && whole && (!dense || self.row == wide) {
            return (run.p as *const f32, self.row);
        }
        self.runs(j, n, n, |run| {
            for i in 0..run.len {
                let to = room.add((run.first + i) * wide);
                self.widen(&run, i, to);
                fill(to.add(self.width), wide - self.width, 0.0);
            }
        });
        fill(room.add(n * wide), (up4(n) - n) * wide, 0.0);
        (room as *const f32, wide)
    }

    /// Rows `j..j+n` as f32 columns (width, n), their rows `ld` apart; columns up to a multiple of four repeat the last.
    /// `spare` has room for four rows.
    #[inline(never)]
    pub unsafe fn turned(&self, j: usize, n: usize, to: *mut f32, ld: usize, spare: *mut f32) {
        let wide = up4(self.width);
        for i in (0..n).step_by(4) {
            let mut rows = [core::ptr::null(); 4];
            for (r, row) in rows.iter_mut().enumerate() {
                let run = self.run(j + (i + r).min(n - 1), 1);
                *row = if self.dtype == F32 {
                    run.p as *const f32
                } else {
                    self.widen(&run, 0, spare.add(r * wide))
                };
            }
            let whole = self.width & !3;
            let mut to = to.add(i);
            for c in (0..whole).step_by(4) {
                for v in transpose4(rows.map(|row| load(row.add(c)))) {
                    store(to, v);
                    to = to.add(ld);
                }
            }
            let left = self.width - whole;
            if left > 0 {
                let turned = transpose4(rows.map(|row| load_part(row.add(whole), left)));
                for v in turned.into_iter().take(left) {
                    store(to, v);
                    to = to.add(ld);
                }
            }
        }
    }

    /// Row i of a run as floats.
    unsafe fn widen(&self, run: &Run, i: usize, to: *mut f32) -> *const f32 {
        let from = at(run.p, i.wrapping_mul(self.row), size(self.dtype));
        read_f32(from, self.dtype, 1, self.width, to);
        if self.dtype == I8 {
            crate::softmax::scale(to, self.width, self.scale(run, i));
        }
        to
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
        self.runs(j, n, n, |run| {
            let c = scores.add(run.first);
            let t = Nt {
                a: queries,
                lda: ldq,
                m,
                b: run.p,
                ldb: self.row,
                n: run.len,
                k: self.width,
                part: core::ptr::null_mut(),
                first: true,
                last: true,
                c,
                ldc: ld,
                bias: core::ptr::null(),
            };
            by_type!(self.dtype, t.run());
            if self.dtype == I8 {
                self.rescale(&run, c, ld, run.len, m, c, ld);
            }
        });
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
        self.runs(j, n, TILE, |run| {
            self.grouped(&run, weights.add(run.first), ldw, m, |i, m, a, lda| {
                let t = Nn {
                    a,
                    lda,
                    m,
                    b: run.p,
                    ldb: self.row,
                    n: self.width,
                    k: run.len,
                    c: at_mut(out, i * ld, 4),
                    ldc: ld,
                    accumulate: true,
                };
                by_type!(self.dtype, t.run());
            });
        });
    }

    /// Calls `each` with rows of weights times the scales of a run: first row, number, weights and their stride. Rows
    /// without scales come all at once, as they are.
    #[inline(always)]
    unsafe fn grouped(
        &self,
        run: &Run,
        weights: *const f32,
        ldw: usize,
        m: usize,
        mut each: impl FnMut(usize, usize, *const f32, usize),
    ) {
        if self.dtype != I8 {
            return each(0, m, weights, ldw);
        }
        let mut scaled = core::mem::MaybeUninit::<[f32; GROUP * TILE]>::uninit();
        let room = scaled.as_mut_ptr() as *mut f32;
        for i in (0..m).step_by(GROUP) {
            let rows = (m - i).min(GROUP);
            self.rescale(run, at(weights, i * ldw, 4), ldw, run.len, rows, room, TILE);
            each(i, rows, room, TILE);
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
        self.runs(j, n, n, |run| {
            let c = scores.add(run.first);
            let rows = self.quads(&run);
            by_type!(self.dtype, rows.scores(queries, ldq, m, c, ld));
            if self.dtype == I8 {
                self.rescale(&run, c, ld, rows.n, m, c, ld);
            }
            if rows.n < run.len {
                let (from, left) = (run.first + rows.n, run.len - rows.n);
                self.scores(queries, ldq, m, j + from, left, scores.add(from), ld);
            }
        });
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
        self.runs(j, n, TILE, |run| {
            let rows = self.quads(&run);
            self.grouped(&run, weights.add(run.first), ldw, m, |i, m, w, ldw| {
                by_type!(self.dtype, rows.weigh(w, ldw, m, at_mut(out, i * ld, 4), ld));
            });
            if rows.n < run.len {
                let (from, left) = (run.first + rows.n, run.len - rows.n);
                self.weigh(weights.add(from), ldw, m, j + from, left, out, ld);
            }
        });
    }

    /// The rows of a run but for the last one to three.
    fn quads(&self, run: &Run) -> Rows {
        Rows {
            base: run.p,
            stride: self.row,
            n: run.len & !3,
            width: self.width,
        }
    }
}
