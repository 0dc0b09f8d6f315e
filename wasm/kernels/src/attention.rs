//! What the attention kernels are asked, and which keys a query row sees.
use crate::blocks::Blocks;
use crate::dtype::{at, at_mut};
use crate::simd::*;
use crate::tile::Stream;

/// Keys (B, Hkv, K, D) or values (B, Hkv, K, Dv); with a block table the first stride is that of a page.
#[repr(C)]
pub struct Operand {
    pub rows: *const u8,
    pub strides: [u32; 3],
    /// (B, Hkv, K) f32 for int8 rows, whose values are element · scale; else null.
    pub scales: *const f32,
    pub scale_strides: [u32; 3],
}

#[repr(C)]
pub struct Attention {
    /// (B, H, Q, D) f32; strides of the first three dimensions.
    pub q: *const f32,
    pub q_strides: [u32; 3],
    pub k: Operand,
    pub v: Operand,
    pub kv_dtype: u32,
    /// Keys of a page, 0 = contiguous; key j lies in page `table[b · table_stride + j / page]`.
    pub page: u32,
    pub table: *const i32,
    pub table_stride: u32,
    /// (B, Q, H, Dv) contiguous.
    pub out: *mut f32,
    /// (B, H, Q, K) contiguous or null; eager only.
    pub weights: *mut f32,
    /// (B, H, Q) contiguous or null.
    pub lse: *mut f32,
    pub b: u32,
    pub h: u32,
    pub hkv: u32,
    pub q_len: u32,
    pub k_len: u32,
    pub d: u32,
    pub dv: u32,
    pub scaling: f32,
    /// Position of query row i among the keys is `i + offset`; it sees keys from `left` before to `right` after it.
    pub offset: i32,
    pub left: i32,
    pub right: i32,
    /// (B, K) bool or null, rows `padding_stride` apart.
    pub padding: *const u8,
    pub padding_stride: u32,
    pub zero_padded_queries: u32,
    /// Broadcast to (B, H, Q, K): 0 none, 1 bool, 2 f32 added to the score.
    pub mask_kind: u32,
    pub mask: *const u8,
    pub mask_strides: [u32; 4],
    pub blocks: Blocks,
    /// (H) or null.
    pub sinks: *const f32,
    pub sink_stride: u32,
    /// Query rows of one part.
    pub q_block: u32,
    /// Score hook (see score.rs) by table index, 0 = none, and what it is passed.
    pub hook: u32,
    pub hook_by_value: u32,
    pub hook_params: [u32; 8],
    /// Query heads of one part of the flash kernels; they share a key head.
    pub q_heads: u32,
    /// Whether the tiles of the flash kernels are wide (wide.rs).
    pub wide: u32,
}

impl Attention {
    /// Whether scores must be in natural units at some point, because a hook or an additive mask works on them.
    pub fn natural(&self) -> bool {
        self.hook != 0 || self.mask_kind == 2
    }

    pub fn query(&self, b: usize, h: usize, i: usize) -> *const f32 {
        let s = &self.q_strides;
        let n = b
            .wrapping_mul(s[0] as usize)
            .wrapping_add(h.wrapping_mul(s[1] as usize));
        at(self.q, n.wrapping_add(i.wrapping_mul(s[2] as usize)), 4)
    }

    pub fn keys(&self, b: usize, h: usize) -> Stream {
        Stream::new(self, &self.k, self.d as usize, b, h)
    }

    pub fn values(&self, b: usize, h: usize) -> Stream {
        Stream::new(self, &self.v, self.dv as usize, b, h)
    }

    pub fn out_row(&self, b: usize, h: usize, i: usize) -> *mut f32 {
        let row = (b * self.q_len as usize + i) * self.h as usize + h;
        at_mut(self.out, row.wrapping_mul(self.dv as usize), 4)
    }

    /// Index of a row in (B, H, Q).
    pub fn row(&self, b: usize, h: usize, i: usize) -> usize {
        (b * self.h as usize + h) * self.q_len as usize + i
    }

    /// Sink logit of a head, −∞ without sinks.
    pub unsafe fn sink(&self, h: usize) -> f32 {
        if self.sinks.is_null() {
            return f32::NEG_INFINITY;
        }
        *self.sinks.add(h * self.sink_stride as usize)
    }
}

/// Sets `n` floats.
#[inline(never)]
pub unsafe fn fill(p: *mut f32, n: usize, x: f32) {
    let mut i = 0;
    while i + 4 <= n {
        store(p.add(i), splat(x));
        i += 4;
    }
    while i < n {
        *p.add(i) = x;
        i += 1;
    }
}

/// Copies `n` floats times `by`, then zeros up to the next multiple of four.
#[inline(never)]
pub unsafe fn copy_scaled(from: *const f32, n: usize, by: f32, to: *mut f32) {
    let mut i = 0;
    while i + 4 <= n {
        store(to.add(i), mul(load(from.add(i)), splat(by)));
        i += 4;
    }
    if i < n {
        store(to.add(i), mul(load_part(from.add(i), n - i), splat(by)));
    }
}
