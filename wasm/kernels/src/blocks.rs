//! Masks by blocks: which blocks of keys the query rows of a part read, and which keys of a block they see.
//!
//! A block of queries lists the blocks of keys it sees (FlexAttention, https://arxiv.org/abs/2412.05496); what it does
//! not list is never touched, and only what is seen in part holds bits. The rows of a part walk their lists side by
//! side. A block is cut into pieces of at most `TILE` keys, always at the same places, so that a row's order of
//! summation ignores the other rows. Without such a mask all keys are one block that every row lists.
use crate::attention::{fill, Attention};
use crate::simd::*;
use crate::tile::TILE;

/// Most rows of a part: of the decoding kernel, and of any.
pub const ROWS: usize = 64;
const MOST_ROWS: usize = 128;

/// A block of keys in a list.
#[repr(C)]
pub struct Entry {
    block: i32,
    /// Which bits are its own, −1 where all is visible.
    bits: i32,
}

#[repr(C)]
pub struct Blocks {
    /// (B, H, query blocks, 2) i32 or null: the entries `[0]..[1]` of a query block; strides of the first three
    /// dimensions.
    pub lists: *const [u32; 2],
    pub list_strides: [u32; 3],
    /// Blocks of keys, ascending within a list.
    pub entries: *const Entry,
    /// Bit `j % 8` of byte `j / 8` of a row is its key j; rows and blocks are these many bytes apart.
    pub bits: *const u8,
    pub row_bytes: u32,
    pub block_bytes: u32,
    /// Queries and keys of a block.
    pub queries: u32,
    pub keys: u32,
}

impl Blocks {
    pub fn present(&self) -> bool {
        !self.lists.is_null()
    }
}

/// Where a row is in its list, and where its bits are within a block.
#[derive(Clone, Copy)]
struct Cursor {
    at: *const Entry,
    end: *const Entry,
    row: usize,
}

/// Rows on their way through the keys.
pub struct Walk<'a> {
    p: &'a Attention,
    rows: core::mem::MaybeUninit<[Cursor; MOST_ROWS]>,
    count: usize,
    block: i32,
    /// Keys of the block the walk has reached.
    pub start: usize,
    pub end: usize,
}

/// The lowest n of 64 bits.
pub fn low(n: usize) -> u64 {
    if n >= 64 {
        !0
    } else {
        (1 << n) - 1
    }
}

impl<'a> Walk<'a> {
    pub fn new(p: &'a Attention) -> Self {
        Walk {
            p,
            rows: core::mem::MaybeUninit::uninit(),
            count: 0,
            block: -1,
            start: 0,
            end: 0,
        }
    }

    unsafe fn cursor(&mut self, row: usize) -> &mut Cursor {
        &mut *(self.rows.as_mut_ptr() as *mut Cursor).add(row)
    }

    /// Adds a row.
    #[inline(never)]
    pub unsafe fn add(&mut self, b: usize, h: usize, i: usize) {
        let t = &self.p.blocks;
        if !t.present() {
            return;
        }
        let s = &t.list_strides;
        let (block, within) = (i / t.queries as usize, i % t.queries as usize);
        let n = b * s[0] as usize + h * s[1] as usize + block * s[2] as usize;
        let [first, end] = *t.lists.byte_add(4 * n);
        let cursor = Cursor {
            at: t.entries.add(first as usize),
            end: t.entries.add(end as usize),
            row: within * t.row_bytes as usize,
        };
        *self.cursor(self.count) = cursor;
        self.count += 1;
    }

    /// Goes to the next block that any row lists; false behind the last one.
    #[inline(never)]
    pub unsafe fn next(&mut self) -> bool {
        let t = &self.p.blocks;
        let k_len = self.p.k_len as usize;
        if !t.present() {
            let first = self.block < 0;
            (self.block, self.end) = (0, k_len);
            return first;
        }
        let (last, mut block) = (self.block, i32::MAX);
        for r in 0..self.count {
            let c = self.cursor(r);
            if c.at != c.end && (*c.at).block == last {
                c.at = c.at.add(1);
            }
            if c.at != c.end {
                block = block.min((*c.at).block);
            }
        }
        if block == i32::MAX {
            return false;
        }
        self.block = block;
        self.start = block as usize * t.keys as usize;
        self.end = (self.start + t.keys as usize).min(k_len);
        true
    }

    /// First key of the first piece of this block that ends behind key `lo`.
    pub fn from(&self, lo: usize) -> usize {
        self.start + lo.saturating_sub(self.start) / TILE * TILE
    }

    /// Length of the piece that begins with key `k0`.
    pub fn piece(&self, k0: usize) -> usize {
        (self.end - k0).min(TILE)
    }

    /// The keys `k0..k0+n` of a piece that a row sees, a bit each. Without a mask by blocks all 64 bits are set.
    pub unsafe fn seen(&mut self, row: usize, k0: usize, n: usize) -> u64 {
        let t = &self.p.blocks;
        if !t.present() {
            return !0;
        }
        let (block, first) = (self.block, (k0 - self.start) / 8);
        let c = self.cursor(row);
        if c.at == c.end || (*c.at).block != block {
            return 0;
        }
        let own = (*c.at).bits;
        if own < 0 {
            return low(n);
        }
        let from = t.bits.add(own as usize * t.block_bytes as usize + c.row + first);
        let mut word = [0; 8];
        core::ptr::copy_nonoverlapping(from, word.as_mut_ptr(), n.div_ceil(8));
        u64::from_le_bytes(word) & low(n)
    }
}

impl Attention {
    /// Hides from a row of scores, one per key, what its blocks hide.
    #[inline(never)]
    pub unsafe fn hide_blocks(&self, b: usize, h: usize, i: usize, scores: *mut f32) {
        if !self.blocks.present() {
            return;
        }
        let mut walk = Walk::new(self);
        walk.add(b, h, i);
        let mut done = 0;
        while walk.next() {
            fill(scores.add(done), walk.start - done, f32::NEG_INFINITY);
            let mut k0 = walk.start;
            while k0 < walk.end {
                let n = walk.piece(k0);
                hide(walk.seen(0, k0, n), n, scores.add(k0));
                k0 += n;
            }
            done = walk.end;
        }
        fill(scores.add(done), self.k_len as usize - done, f32::NEG_INFINITY);
    }
}

/// Hides the scores whose bit is not set; n is at most 64.
#[inline(never)]
pub unsafe fn hide(seen: u64, n: usize, scores: *mut f32) {
    let hidden = !seen & low(n);
    let (mut j, bit) = (hidden.trailing_zeros() as usize & !3, vec4i([1, 2, 4, 8]));
    while j + 4 <= n {
        let part = (hidden >> j) as i32 & 15;
        if part != 0 {
            let mask = eqi(and(splati(part), bit), bit);
            let s = scores.add(j);
            store(s, select(mask, splat(f32::NEG_INFINITY), load(s)));
        }
        j += 4;
    }
    while j < n {
        if hidden >> j & 1 != 0 {
            *scores.add(j) = f32::NEG_INFINITY;
        }
        j += 1;
    }
}
