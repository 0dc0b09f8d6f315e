//! The score hook: a function of the table that changes a tile of scores in place, before masks.
//!
//! The score of query `q0 + i` and key `k0 + j` is `scores[i · ld + j]`, for `rows` queries and `cols` keys of one
//! head. The flash kernel keeps scores transposed and turns tiles around for a hook; one that looks only at the
//! score, not at where it lies (`hook_by_value`), is handed them as they are.
use crate::activation::each1;
use crate::attention::Attention;
use crate::math::tanh;
use crate::simd::*;

pub type Hook = unsafe extern "C" fn(
    scores: *mut f32,
    ld: u32,
    b: u32,
    h: u32,
    q0: u32,
    k0: u32,
    rows: u32,
    cols: u32,
    params: *const u32,
);

impl Attention {
    /// Runs the hook, if there is one, on rows of scores.
    #[inline(always)]
    pub unsafe fn call_hook(&self, scores: *mut f32, ld: usize, place: [usize; 4], rows: usize, cols: usize) {
        if self.hook == 0 {
            return;
        }
        let hook: Hook = core::mem::transmute(self.hook as usize);
        let [b, h, q0, k0] = place.map(|x| x as u32);
        hook(
            scores,
            ld as u32,
            b,
            h,
            q0,
            k0,
            rows as u32,
            cols as u32,
            self.hook_params.as_ptr(),
        );
    }

    /// Runs the hook on a transposed tile, eight queries wide; `room` takes `8 · ld` floats, `ld ≥ up4(cols)`.
    #[inline(never)]
    pub unsafe fn call_hook_transposed(
        &self,
        scores: *mut f32,
        room: *mut f32,
        ld: usize,
        place: [usize; 4],
        rows: usize,
        cols: usize,
    ) {
        if self.hook_by_value != 0 {
            self.call_hook(scores, 8, place, cols, 8);
            return;
        }
        for half in 0..2 {
            for j in (0..cols).step_by(4) {
                transpose_block(scores.add(8 * j + 4 * half), 8, room.add(4 * half * ld + j), ld);
            }
        }
        self.call_hook(room, ld, place, rows, cols);
        for half in 0..2 {
            for j in (0..cols).step_by(4) {
                transpose_block(room.add(4 * half * ld + j), ld, scores.add(8 * j + 4 * half), 8);
            }
        }
    }
}

#[inline(always)]
unsafe fn transpose_block(from: *const f32, ld_from: usize, to: *mut f32, ld_to: usize) {
    let row = |r: usize| load(from.add(r * ld_from));
    for (r, v) in transpose4([row(0), row(1), row(2), row(3)])
        .into_iter()
        .enumerate()
    {
        store(to.add(r * ld_to), v);
    }
}

/// `c · tanh(score / c)`, c being the first parameter (Gemma 2).
#[no_mangle]
pub unsafe extern "C" fn softcap(
    scores: *mut f32,
    ld: u32,
    _b: u32,
    _h: u32,
    _q0: u32,
    _k0: u32,
    rows: u32,
    cols: u32,
    params: *const u32,
) {
    let c = splat(f32::from_bits(*params));
    let cap = |x| mul(c, tanh(div(x, c)));
    // Without gaps the tile is one long row.
    let (rows, cols) = if ld == cols {
        (1, rows * cols)
    } else {
        (rows, cols)
    };
    for i in 0..rows {
        let row = scores.add((i * ld) as usize);
        each1(row, row, cols as usize, cap);
    }
}

/// Table index of [`softcap`].
#[no_mangle]
pub extern "C" fn softcap_index() -> u32 {
    softcap as *const () as usize as u32
}
