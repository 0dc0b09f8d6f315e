//! Flash attention for blocks of query rows (prefill): what all versions share, and version 2.
//!
//! Over the naive version: tiles of keys with an online softmax (FlashAttention-2, Dao 2023: unnormalised output,
//! one division at the end), so memory does not grow with K; base-2 exponentials with the scale folded into the
//! queries; tiles nobody sees are never touched, in tiles everybody sees whole no mask is evaluated. Scores are
//! kept transposed, lanes are queries: maxima and sums are vertical, and the weights come out in the layout the
//! second product reads. Keys are turned once a tile, and then both products are one register tile (columns.rs).
//! Eight queries make a group, the unit of masking; a part has up to sixteen groups, of all query heads that share a
//! key head, which share each tile of keys and values.
//!
//! Ladder: version 2 takes the stages one after the other and scales the output so far in every tile, in the
//! registers of the second product; version 3 (flash3.rs) computes the exponentials of one group between the scores
//! of another, and has scores of int8; version 4 (flash4.rs) leaves the output alone while maxima grow little. What
//! each gains: bench/NOTES.md.
use crate::attention::Attention;
use crate::blocks::Walk;
use crate::columns::{columns, Floats};
use crate::group::{Group, LANES};
use crate::scores::{Beside, Onto, Scores, Weights};
use crate::simd::*;
use crate::tile::{up4, TILE};

/// Most groups of one part.
const GROUPS: usize = 16;

/// How a version of the algorithm takes its stages.
#[derive(Clone, Copy)]
pub struct Version {
    /// Whether the scores of a group are computed between the exponentials of the one before.
    pub overlap: bool,
    /// By how much (base 2) a maximum may grow before earlier output is scaled; below 0 it always is.
    pub slack: f32,
}

/// FlashAttention-2 (https://arxiv.org/abs/2307.08691). Parts: see [`run`].
#[no_mangle]
pub unsafe extern "C" fn attention_flash(params: *const Attention, scratch: *mut u8, begin: u32, end: u32) {
    let version = Version {
        overlap: false,
        slack: -1.0,
    };
    run::<Floats>(version, &*params, scratch, begin, end);
}

/// Does parts of (B, H / `q_heads`, blocks of `q_block` rows of `q_heads` heads each).
#[inline(never)]
pub unsafe fn run<S: Scores>(version: Version, p: &Attention, scratch: *mut u8, begin: u32, end: u32) {
    let blocks = p.q_len.div_ceil(p.q_block);
    let bands = p.h / p.q_heads;
    for part in begin..end {
        let i0 = (part % blocks * p.q_block) as usize;
        let bh = part / blocks;
        let rows = (p.q_len as usize - i0).min(p.q_block as usize);
        let (b, h) = ((bh / bands) as usize, (bh % bands * p.q_heads) as usize);
        block::<S>(version, p, scratch as *mut f32, b, h, i0, rows);
    }
}

/// Scratch memory of a part.
struct Rooms {
    scores: [*mut f32; 2],
    turned: *mut f32,
    k: *mut f32,
    v: *mut f32,
}

/// Floats between the rows of turned keys: a line more than the keys of a tile, so that a column has its own cache
/// sets.
const KEY_ROW: usize = TILE + 16;

/// A tile of keys and values.
struct Tile {
    k0: usize,
    n: usize,
    /// Keys as columns of words (words, n) and what their scores are multiplied by.
    k: *const f32,
    unit: f32,
    /// Values (n, Dv) and floats from row to row.
    v: *const f32,
    ldv: usize,
}

unsafe fn block<S: Scores>(
    version: Version,
    p: &Attention,
    scratch: *mut f32,
    b: usize,
    h0: usize,
    i0: usize,
    rows: usize,
) {
    let (d, dv) = (p.d as usize, p.dv as usize);
    let (wide, wide_v) = (up4(d), up4(dv));
    let scores = scratch;
    let k = scores.add(3 * TILE * LANES);
    let v = k.add(KEY_ROW * wide);
    let rooms = Rooms {
        scores: [scores, scores.add(TILE * LANES)],
        turned: scores.add(2 * TILE * LANES),
        k,
        v,
    };
    let mut next = v.add((TILE * wide_v).max(4 * wide));
    let mut state = core::mem::MaybeUninit::<[Group; GROUPS]>::uninit();
    let groups = state.as_mut_ptr() as *mut Group;
    let (mut lo, mut hi) = (p.k_len as i32, 0);
    let mut walk = Walk::new(p);
    let mut count = 0;
    for h in h0..h0 + p.q_heads as usize {
        for i in (i0..i0 + rows).step_by(LANES) {
            let own = (i0 + rows - i).min(LANES);
            let mut group = Group::new(p, b, h, i, own, next);
            (group.begin, group.unit) = S::queries(group.q, d);
            next = group.o.add(wide_v * LANES);
            if group.any.lo < group.any.hi {
                lo = lo.min(group.any.lo);
                hi = hi.max(group.any.hi);
            }
            for lane in 0..LANES {
                walk.add(b, h, i + lane.min(own - 1));
            }
            *groups.add(count) = group;
            count += 1;
        }
    }
    let groups = core::slice::from_raw_parts_mut(groups, count);
    let kv = h0 / (p.h / p.hkv) as usize;
    let (keys, values) = (p.keys(b, kv), p.values(b, kv));
    while walk.next() {
        let mut k0 = walk.from(lo as usize);
        while k0 < walk.end.min(hi as usize) {
            let n = walk.piece(k0);
            let real = p.padding_bits(b, k0, n);
            let mut any = 0;
            for (g, group) in groups.iter_mut().enumerate() {
                group.look(p, &mut walk, g * LANES, b, k0, n, real);
                any |= group.any_seen();
            }
            if any != 0 {
                // The room of values holds rows of keys until they are turned.
                keys.turned(k0, n, rooms.k, KEY_ROW, rooms.v);
                let unit = S::keys(rooms.k, KEY_ROW, up4(n), d);
                let (v, ldv) = values.tile(k0, n, true, rooms.v);
                let k = rooms.k;
                let tile = Tile {
                    k0,
                    n,
                    k,
                    unit,
                    v,
                    ldv,
                };
                step::<S>(version, p, groups, b, &tile, &rooms);
            }
            k0 += n;
        }
    }
    for group in groups {
        group.finish(p, b);
    }
}

/// Scores on their way to the second product.
struct Pending {
    group: usize,
    from: usize,
    len: usize,
    weights: Weights,
    /// What earlier output is scaled by.
    alpha: Option<[V; 2]>,
}

/// Takes a tile into all groups.
#[inline(never)]
unsafe fn step<S: Scores>(
    version: Version,
    p: &Attention,
    groups: &mut [Group],
    b: usize,
    tile: &Tile,
    rooms: &Rooms,
) {
    let mut pending: Option<Pending> = None;
    let mut turn = 0;
    for g in 0..groups.len() {
        let Some(span) = groups[g].span(tile.n) else {
            continue;
        };
        let group = &groups[g];
        let scores = rooms.scores[turn];
        let mut beside = Beside::<S> {
            begin: group.begin,
            unit: group.unit.map(|u| mul(u, splat(tile.unit))),
            best: group.m,
            // Without overlap nothing is pending here: there are no exponentials between the tiles.
            weights: pending.as_mut().map(|before| &mut before.weights),
            of: core::marker::PhantomData,
        };
        let k = tile.k.add(span.from);
        let words = S::words(p.d as usize);
        columns(
            k,
            KEY_ROW,
            span.len,
            group.q,
            words,
            scores,
            &mut beside,
            S::PLAIN && p.wide != 0,
        );
        let m = beside.best;
        if let Some(before) = pending.take() {
            add_values(p, groups, tile, before);
        }
        let group = &mut groups[g];
        let m = group.mask(p, b, tile.k0 + span.from, &span, scores, rooms.turned, m);
        let (base, alpha) = group.raise(m, version.slack);
        let ready = Pending {
            group: g,
            from: span.from,
            len: span.len,
            weights: Weights::new(scores, span.len, base),
            alpha,
        };
        if version.overlap {
            pending = Some(ready);
            turn = 1 - turn;
        } else {
            add_values(p, groups, tile, ready);
        }
    }
    if let Some(last) = pending {
        add_values(p, groups, tile, last);
    }
}

/// The stages behind the scores: the exponentials that are left, the sum, and the product with the values.
#[inline(never)]
unsafe fn add_values(p: &Attention, groups: &mut [Group], tile: &Tile, mut ready: Pending) {
    ready.weights.rest();
    let group = &mut groups[ready.group];
    let total = ready.weights.total;
    let v = crate::dtype::at(tile.v, ready.from.wrapping_mul(tile.ldv), 4);
    let (wide, s) = (up4(p.dv as usize), ready.weights.scores);
    group.l = [0, 1].map(|x| match ready.alpha {
        Some(alpha) => madd(group.l[x], alpha[x], total[x]),
        None => add(group.l[x], total[x]),
    });
    let mut onto = Onto { by: ready.alpha };
    columns(v, tile.ldv, wide, s, ready.len, group.o, &mut onto, p.wide != 0);
}
