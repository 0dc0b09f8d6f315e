//! The register tile of the products in assembly: six rows by eight columns, for the build with relaxed SIMD.
//!
//! Ladder: a processor begins some six instructions a cycle, and half of them where its core serves another thread, so a
//! tile is judged by instructions per multiply-add. The 5×8 tile of columns.rs takes 2.8: four loads and, where the
//! runtime checks bounds in software, a comparison for each and a limit for every offset, four lane shuffles, and a
//! branch a step that keeps LLVM from ordering steps as it likes. This one takes 2.2; what that gains: bench/NOTES.md.
//!
//! - Four of the six rows are one vector, turned three times in its own register, and the lanes of their sums belong
//!   to different rows: lane l of sum r is of row (l + r) % 4. The other two are one pair, swapped once.
//! - Twelve sums, two vectors of B and one of A are all 15 vector registers V8 hands out. Written in Rust the turns
//!   become shuffles of the vector they began with (LLVM combines shuffles), which takes a sixteenth.
//! - Pointers move a step at a time, so that loads have four offsets, whose limits stay in registers.
//!
//! An element is one chain over the contraction, whatever the tile. The build without relaxed SIMD has no such tile:
//! a product that is rounded by itself takes a register more.
//!
//! Length: assembly has a line for each instruction.
use crate::simd::*;

/// Whether the tile is there.
pub const PRESENT: bool = cfg!(any(not(target_arch = "wasm32"), target_feature = "relaxed-simd"));

/// Sums of a tile as its rows.
#[inline(always)]
pub fn straighten(sums: &mut [[V; 2]; 6]) {
    for h in 0..2 {
        let four = straight([sums[0][h], sums[1][h], sums[2][h], sums[3][h]]);
        for (r, v) in four.into_iter().enumerate() {
            sums[r][h] = v;
        }
        let [p, q] = [sums[4][h], sums[5][h]];
        (sums[4][h], sums[5][h]) = (even_and_odd(p, q), even_and_odd(q, p));
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
extern "C" {
    /// Raw sums of a tile, 12 vectors: begun with zero, or with what is there. `a` steps by `next_a` bytes, `b` by 32 up
    /// to `end`.
    pub fn six_sums(a: *const f32, next_a: usize, b: *const f32, end: *const f32, sums: *mut f32, carry: u32);
    /// Rows of a tile from sums that begin with zero, and the largest elements of its eight columns: `best` or larger.
    pub fn six_rows(
        a: *const f32,
        next_a: usize,
        b: *const f32,
        end: *const f32,
        c: *mut f32,
        best: *mut f32,
    );
    /// `c · by +` such rows; `by` has eight columns.
    pub fn six_onto(
        a: *const f32,
        next_a: usize,
        b: *const f32,
        end: *const f32,
        c: *mut f32,
        by: *const f32,
    );
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "relaxed-simd")))]
pub use plain::*;

/// The same in Rust, for tests on the host; the build without relaxed SIMD never calls it.
#[cfg(not(all(target_arch = "wasm32", target_feature = "relaxed-simd")))]
mod plain {
    use super::*;

    pub unsafe fn six_sums(
        a: *const f32,
        next_a: usize,
        b: *const f32,
        end: *const f32,
        sums: *mut f32,
        carry: u32,
    ) {
        if carry == 0 {
            crate::attention::fill(sums, 48, 0.0);
        }
        let (mut a, mut b) = (a, b);
        while b != end {
            let mut x = load(a);
            for r in 0..6 {
                if r == 4 {
                    let (s, t) = (*a.add(4), *a.add(5));
                    x = vec4([s, t, s, t]);
                }
                for h in 0..2 {
                    let sum = sums.add(8 * r + 4 * h);
                    store(sum, madd(x, load(b.add(4 * h)), load(sum)));
                }
                let lanes = [extract::<0>(x), extract::<1>(x), extract::<2>(x), extract::<3>(x)];
                x = vec4([lanes[1], lanes[2], lanes[3], lanes[0]]);
            }
            a = a.wrapping_byte_add(next_a);
            b = b.add(8);
        }
    }

    unsafe fn rows(a: *const f32, next_a: usize, b: *const f32, end: *const f32) -> [[V; 2]; 6] {
        let mut sums = [0.0; 48];
        six_sums(a, next_a, b, end, sums.as_mut_ptr(), 0);
        let mut rows = [[splat(0.0); 2]; 6];
        for (i, row) in rows.as_flattened_mut().iter_mut().enumerate() {
            *row = load(sums.as_ptr().add(4 * i));
        }
        straighten(&mut rows);
        rows
    }

    pub unsafe fn six_rows(
        a: *const f32,
        next_a: usize,
        b: *const f32,
        end: *const f32,
        c: *mut f32,
        best: *mut f32,
    ) {
        for (i, row) in rows(a, next_a, b, end).as_flattened().iter().enumerate() {
            let best = best.add(i % 2 * 4);
            store(c.add(4 * i), *row);
            store(best, pmax(load(best), *row));
        }
    }

    pub unsafe fn six_onto(
        a: *const f32,
        next_a: usize,
        b: *const f32,
        end: *const f32,
        c: *mut f32,
        by: *const f32,
    ) {
        for (i, row) in rows(a, next_a, b, end).as_flattened().iter().enumerate() {
            let c = c.add(4 * i);
            store(c, madd(load(c), load(by.add(i % 2 * 4)), *row));
        }
    }
}

// Parameters: 0 a, 1 next_a, 2 b, 3 end, 4 c, 5 carry, best or by. Locals: 6 end of the unrolled steps; 7 … 18 sums, two
// vectors for each turn; 19 and 20 columns of B, 21 rows of A.
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
core::arch::global_asm!(
    r#"
.macro multiply sum, by
  local.get 21
  local.get \by
  local.get \sum
  f32x4.relaxed_madd
  local.set \sum
.endm
.macro both first, second
  multiply \first, 19
  multiply \second, 20
.endm
.macro turn_rows
  local.get 21
  local.get 21
  i8x16.shuffle 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3
  local.set 21
.endm
.macro step
  local.get 2
  v128.load 0:p2align=2
  local.set 19
  local.get 2
  v128.load 16:p2align=2
  local.set 20
  local.get 0
  v128.load 0:p2align=2
  local.set 21
  both 7, 8
  turn_rows
  both 9, 10
  turn_rows
  both 11, 12
  turn_rows
  both 13, 14
  local.get 0
  v128.load64_splat 16:p2align=2
  local.set 21
  both 15, 16
  local.get 21
  local.get 21
  i8x16.shuffle 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11
  local.set 21
  both 17, 18
  local.get 0
  local.get 1
  i32.add
  local.set 0
  local.get 2
  i32.const 32
  i32.add
  local.set 2
.endm
.macro steps
  local.get 3
  local.get 2
  i32.sub
  i32.const -256
  i32.and
  local.get 2
  i32.add
  local.set 6
  block
  local.get 2
  local.get 6
  i32.eq
  br_if 0
  loop
  .rept 8
  step
  .endr
  local.get 2
  local.get 6
  i32.ne
  br_if 0
  end_loop
  end_block
  block
  local.get 2
  local.get 3
  i32.eq
  br_if 0
  loop
  step
  local.get 2
  local.get 3
  i32.ne
  br_if 0
  end_loop
  end_block
.endm
.macro carried sum, offset
  local.get 4
  v128.load \offset:p2align=2
  local.set \sum
.endm
.macro raw sum, offset
  local.get 4
  local.get \sum
  v128.store \offset:p2align=2
.endm
.macro low_then_high a, b, to
  local.get \a
  local.get \b
  i8x16.shuffle 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31
  local.set \to
.endm
.macro even_and_odd a, b, to
  local.get \a
  local.get \b
  i8x16.shuffle 0, 1, 2, 3, 20, 21, 22, 23, 8, 9, 10, 11, 28, 29, 30, 31
  local.set \to
.endm
.macro straight a, b, c, d, e, f
  low_then_high \a, \c, 19
  low_then_high \c, \a, 20
  low_then_high \b, \d, 21
  low_then_high \d, \b, \d
  even_and_odd 19, \d, \a
  even_and_odd 21, 19, \b
  even_and_odd 20, 21, \c
  even_and_odd \d, 20, \d
  even_and_odd \e, \f, 19
  even_and_odd \f, \e, \f
  local.get 19
  local.set \e
.endm
.macro largest sum, best
  local.get \best
  local.get \sum
  f32x4.pmax
  local.set \best
.endm
.macro onto sum, by, offset
  local.get 4
  local.get 4
  v128.load \offset:p2align=2
  local.get \by
  local.get \sum
  f32x4.relaxed_madd
  v128.store \offset:p2align=2
.endm
.macro each_sum what
  \what 7, 0
  \what 8, 16
  \what 9, 32
  \what 10, 48
  \what 11, 64
  \what 12, 80
  \what 13, 96
  \what 14, 112
  \what 15, 128
  \what 16, 144
  \what 17, 160
  \what 18, 176
.endm
.macro begin name
  .globl \name
  .type \name,@function
\name:
  .functype \name (i32, i32, i32, i32, i32, i32) -> ()
  .local i32, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
.endm
.text
begin six_sums
  block
  local.get 5
  i32.eqz
  br_if 0
  each_sum carried
  end_block
  steps
  each_sum raw
  end_function
begin six_rows
  steps
  straight 7, 9, 11, 13, 15, 17
  straight 8, 10, 12, 14, 16, 18
  each_sum raw
  local.get 5
  v128.load 0:p2align=2
  local.set 19
  local.get 5
  v128.load 16:p2align=2
  local.set 20
  largest 7, 19
  largest 8, 20
  largest 9, 19
  largest 10, 20
  largest 11, 19
  largest 12, 20
  largest 13, 19
  largest 14, 20
  largest 15, 19
  largest 16, 20
  largest 17, 19
  largest 18, 20
  local.get 5
  local.get 19
  v128.store 0:p2align=2
  local.get 5
  local.get 20
  v128.store 16:p2align=2
  end_function
begin six_onto
  steps
  straight 7, 9, 11, 13, 15, 17
  straight 8, 10, 12, 14, 16, 18
  local.get 5
  v128.load 0:p2align=2
  local.set 19
  local.get 5
  v128.load 16:p2align=2
  local.set 20
  onto 7, 19, 0
  onto 8, 20, 16
  onto 9, 19, 32
  onto 10, 20, 48
  onto 11, 19, 64
  onto 12, 20, 80
  onto 13, 19, 96
  onto 14, 20, 112
  onto 15, 19, 128
  onto 16, 20, 144
  onto 17, 19, 160
  onto 18, 20, 176
  end_function
"#
);
