//! The score hook: a function of the table that changes a tile of scores in place, before masks.
//!
//! The tile is keys by queries: the score of query `q0 + i` and key `k0 + j` is `scores[j · ld + i]`, for `rows`
//! queries and `cols` keys. That is the layout of the flash kernel (lanes are queries); a kernel that works row by
//! row calls it with `rows = ld = 1`.
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
    /// Runs the hook, if there is one.
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
    let (rows, cols) = if ld == rows {
        (rows * cols, 1)
    } else {
        (rows, cols)
    };
    for j in 0..cols {
        let row = scores.add((j * ld) as usize);
        let (mut i, n) = (0, rows as usize);
        while i + 4 <= n {
            store(row.add(i), cap(load(row.add(i))));
            i += 4;
        }
        if i < n {
            store_part(row.add(i), cap(load_part(row.add(i), n - i)), n - i);
        }
    }
}

/// Table index of [`softcap`].
#[no_mangle]
pub extern "C" fn softcap_index() -> u32 {
    softcap as *const () as usize as u32
}
