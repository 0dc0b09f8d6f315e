//! FlashAttention-3 on a CPU: overlapped stages, and scores of int8.
//!
//! Over version 2: while the scores of one group of queries are multiplied, five keys at a time, the exponentials
//! of the group before are computed between the tiles (ping-pong scheduling with two score buffers,
//! FlashAttention-3, Shah et al. 2024, https://arxiv.org/abs/2407.08608), for an out-of-order core to fill one's
//! gaps with the other. Fifteen vector registers hold the ten sums of a tile and its operands, so the
//! exponentials cannot share its innermost loop.
//!
//! Low precision, where it is asked for: queries in 8 bits with a scale a row, keys in 7 bits with a scale a block
//! of 64, products summed in 32 bits; weights and values stay float32. Keys are stored as 0…127 (64 stands for
//! zero), the operand range in which the relaxed dot product means the same on every machine, so there is nothing
//! to probe; the build without relaxed instructions multiplies the same numbers in 16 bits and gets the same sums.
use crate::attention::Attention;
use crate::columns::{Floats, Multiply};
use crate::flash::{run, Version};
use crate::group::LANES;
use crate::scores::Scores;
use crate::simd::*;

const VERSION: Version = Version {
    overlap: true,
    slack: -1.0,
};

/// Parts: as `attention_flash`.
#[no_mangle]
pub unsafe extern "C" fn attention_flash_3(params: *const Attention, scratch: *mut u8, begin: u32, end: u32) {
    run::<Floats>(VERSION, &*params, scratch, begin, end);
}

/// As [`attention_flash_3`], with scores of int8.
#[no_mangle]
pub unsafe extern "C" fn attention_flash_3_int8(
    params: *const Attention,
    scratch: *mut u8,
    begin: u32,
    end: u32,
) {
    run::<Bytes>(VERSION, &*params, scratch, begin, end);
}

/// Small integers, [`PACK`] in a word.
pub struct Bytes;

/// Integers of a word, and what a stored key is above its value.
const PACK: usize = WIDE_DOT;
const SHIFT: i32 = 64;

impl Multiply for Bytes {
    #[inline(always)]
    fn add(x: V, y: V, sum: V) -> V {
        dot(y, x, sum)
    }
}

/// Adding it leaves an integer, rounded, in the low bits.
const ROUND: f32 = 12_582_912.0;

impl Scores for Bytes {
    type By = Bytes;

    fn words(d: usize) -> usize {
        d.div_ceil(PACK)
    }

    #[inline(never)]
    unsafe fn queries(q: *mut f32, d: usize) -> ([V; 2], [V; 2]) {
        let halves = [q, q.add(4)];
        let top = halves.map(|q| top(q, LANES, d));
        let unit = top.map(|t| div(t, splat(127.0)));
        let sums = [0, 1].map(|x| {
            let inverse = andnot(div(splat(127.0), top[x]), eq(top[x], splat(0.0)));
            pack(halves[x], LANES, d, inverse, 0)
        });
        (sums.map(|s| muli(s, splati(-SHIFT))), unit)
    }

    #[inline(never)]
    unsafe fn keys(k: *mut f32, ld: usize, n: usize, d: usize) -> f32 {
        let mut most = splat(0.0);
        for j in (0..n).step_by(4) {
            most = pmax(most, top(k.add(j), ld, d));
        }
        let most = largest(most);
        let inverse = splat(if most == 0.0 { 0.0 } else { 63.0 / most });
        for j in (0..n).step_by(4) {
            pack(k.add(j), ld, d, inverse, SHIFT);
        }
        most / 63.0
    }

    #[inline(always)]
    fn end(sum: V, unit: V) -> V {
        mul(from_int(sum), unit)
    }
}

/// The largest magnitudes of four columns of D floats.
#[inline(always)]
unsafe fn top(x: *const f32, ld: usize, d: usize) -> V {
    let mut top = splat(0.0);
    for c in 0..d {
        top = pmax(top, abs(load(x.add(c * ld))));
    }
    top
}

/// Four columns of D floats, times `inverse` and moved by `shift`, as columns of words in their place; a word is
/// made of the rows it replaces, never of later ones. Returns the sums of the integers.
#[inline(always)]
unsafe fn pack(x: *mut f32, ld: usize, d: usize, inverse: V, shift: i32) -> V {
    let mut sums = splati(0);
    for w in 0..Bytes::words(d) {
        let mut word = splati(0);
        for j in 0..PACK.min(d - w * PACK) {
            let v = mul(load(x.add((w * PACK + j) * ld)), inverse);
            let v = subi(add(v, splat(ROUND)), splati(ROUND.to_bits() as i32 - shift));
            sums = addi(sums, v);
            word = or(word, place(v, j));
        }
        store(x.add(w * ld), word);
    }
    sums
}

/// Lanes' low bits as the j-th integer of their words.
#[inline(always)]
fn place(v: V, j: usize) -> V {
    if PACK == 2 {
        return if j == 0 {
            and(v, splati(0xffff))
        } else {
            shl::<16>(v)
        };
    }
    let byte = and(v, splati(0xff));
    match j {
        0 => byte,
        1 => shl::<8>(byte),
        2 => shl::<16>(byte),
        _ => shl::<24>(byte),
    }
}
