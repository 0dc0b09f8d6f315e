//! Weights → quantised weights, and between the form of files and that of memory (quantized_layout.rs).
//!
//! A weight is quantised to the same bits by every build on every engine: nothing that is relaxed rounds here.
use crate::dtype::{at, read_f32, size, to_half, Element, Half};
use crate::quantized_layout::*;
use crate::simd::*;

#[repr(C)]
pub struct Weights {
    /// (O, I) of any float type, contiguous; or in the form of files: int8 (O, I), or for 4 bits uint8 (O, I/2), where
    /// byte j of a row holds weight 2j in its lower half and weight 2j + 1 in its upper one, each plus 8.
    values: *mut u8,
    dtype: u32,
    /// In the form of files: (O) f32, or (O, G) f16.
    scales: *mut u8,
    /// Records (⌈O/4⌉, G), then a float a row (quantized_layout.rs).
    packed: *mut u8,
    format: u32,
    o: u32,
    i: u32,
}

impl Weights {
    fn groups(&self) -> usize {
        (self.i as usize).div_ceil(GROUP)
    }

    unsafe fn record(&self, block: usize, g: usize) -> *mut u8 {
        let index = block.wrapping_mul(self.groups()).wrapping_add(g);
        self.packed
            .wrapping_add(index.wrapping_mul(record_bytes(self.format)))
    }

    /// Where a group lies in the form of files, and how many weights it has.
    unsafe fn file_group(&self, row: usize, g: usize) -> (*mut u8, usize) {
        let inner = self.i as usize;
        let n = (inner - g * GROUP).min(GROUP);
        let halves = if self.format == INT4_G32 { 2 } else { 1 };
        let start = row.wrapping_mul(inner / halves).wrapping_add(g * GROUP / halves);
        (self.values.wrapping_add(start), n)
    }

    /// What a row has behind the records.
    unsafe fn row_float(&self, row: usize) -> *mut f32 {
        let blocks = (self.o as usize).div_ceil(4);
        self.record(blocks, 0).wrapping_add(row * 4) as *mut f32
    }
}

/// Weights that are looked at together, in the scratch memory.
const PIECE: usize = 4096;

unsafe fn read_piece(p: &Weights, row: usize, from: usize, n: usize, to: *mut f32) {
    let bytes = size(p.dtype);
    let start = at(
        at(p.values as *const u8, row.wrapping_mul(p.i as usize), bytes),
        from,
        bytes,
    );
    read_f32(start, p.dtype, 1, n, to);
    for i in n..n.next_multiple_of(GROUP) {
        *to.add(i) = 0.0;
    }
}

/// Quantises `values`; parts are blocks of four rows.
#[no_mangle]
pub unsafe extern "C" fn quantize_weight(params: *const Weights, scratch: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let piece = scratch as *mut f32;
    for block in begin as usize..end as usize {
        for c in 0..4 {
            quantize_row(p, block, c, piece);
        }
    }
}

unsafe fn quantize_row(p: &Weights, block: usize, c: usize, piece: *mut f32) {
    let (row, inner) = (block * 4 + c, p.i as usize);
    let real = row < p.o as usize;
    let (mut scale, mut lost) = (0.0f32, 0.0f32);
    if p.format == INT8 {
        let mut from = 0;
        while real && from < inner {
            let n = (inner - from).min(PIECE);
            read_piece(p, row, from, n, piece);
            scale = peak(core::slice::from_raw_parts(piece, n), scale);
            from += n;
        }
        scale /= 127.0;
        *p.row_float(row) = scale;
    }
    let mut from = 0;
    while from < inner {
        let n = (inner - from).min(PIECE);
        if real {
            read_piece(p, row, from, n, piece);
        }
        for g in 0..n.div_ceil(GROUP) {
            let x = core::slice::from_raw_parts(piece.add(g * GROUP), GROUP);
            let (q, s) = if !real {
                ([0; GROUP], 0.0)
            } else {
                match p.format {
                    INT8 => (rounded(x, scale, 127.0), scale),
                    INT8_G32 => {
                        let s = held_half(peak(x, 0.0) / 127.0);
                        (rounded(x, s, 127.0), s)
                    }
                    _ => best_of_four_bits(x),
                }
            };
            lost += s * 0.0;
            write_group(p.record(block, from / GROUP + g), p.format, c, &q, s);
        }
        from += n;
    }
    if p.format != INT8 {
        *p.row_float(row) = lost;
    }
}

/// The largest magnitude, at least `so_far`; NaN where one is.
fn peak(x: &[f32], so_far: f32) -> f32 {
    x.iter().fold(so_far, |m, &v| {
        let a = v.abs();
        if a > m || a.is_nan() {
            a
        } else {
            m
        }
    })
}

/// What a scale becomes in 16 bits.
fn held_half(x: f32) -> f32 {
    let bits = to_half(x);
    unsafe { Half::load1(&bits as *const u16 as *const u8, 0) }
}

fn rounded(x: &[f32], scale: f32, most: f32) -> Group {
    let mut q = [0; GROUP];
    if scale > 0.0 {
        for (to, &v) in q.iter_mut().zip(x) {
            *to = nearest(v / scale).clamp(-most, most) as i8;
        }
    }
    q
}

/// The −8…7 and the scale that come closest to `x` in squares, among those by which the largest weight becomes −7.2…−8.8:
/// for each such rounding the best scale is known (least squares), and the gain is what it explains.
fn best_of_four_bits(x: &[f32]) -> (Group, f32) {
    let (mut largest, mut magnitude) = (0.0f32, 0.0f32);
    for &v in x {
        if v.abs() > magnitude {
            (largest, magnitude) = (v, v.abs());
        }
    }
    if !peak(x, 0.0).is_finite() {
        return ([0; GROUP], f32::NAN);
    }
    // Smaller scales are 0 in 16 bits.
    if magnitude < 1e-10 {
        return ([0; GROUP], 0.0);
    }
    let nearest = |v: V| sub(add(v, splat(12_582_912.0)), splat(12_582_912.0));
    let step = |v: V, inverse: V| at_most(at_least(nearest(mul(v, inverse)), splat(-8.0)), splat(7.0));
    let piece = |i: usize| unsafe { load(x.as_ptr().add(i)) };
    let (mut best, mut found) = (-1.0f32, (0.0f32, 0.0f32));
    for k in -8..=8 {
        let inverse = -(8.0 + k as f32 * 0.1) / largest;
        let (mut xq, mut qq) = (splat(0.0), splat(0.0));
        for i in (0..GROUP).step_by(4) {
            let (v, n) = (piece(i), step(piece(i), splat(inverse)));
            xq = add(xq, mul(v, n));
            qq = add(qq, mul(n, n));
        }
        let (xq, qq) = (sum(xq), sum(qq));
        if qq > 0.0 && xq * xq / qq > best {
            best = xq * xq / qq;
            found = (inverse, xq / qq);
        }
    }
    let (inverse, scale) = found;
    let (mut levels, mut q) = ([0.0f32; GROUP], [0i8; GROUP]);
    for i in (0..GROUP).step_by(4) {
        unsafe { store(levels.as_mut_ptr().add(i), step(piece(i), splat(inverse))) };
    }
    for (to, &n) in q.iter_mut().zip(&levels) {
        *to = n as i8;
    }
    (q, held_half(scale))
}

/// From the form of files to that of memory; parts are blocks of four rows.
#[no_mangle]
pub unsafe extern "C" fn pack_weight(params: *const Weights, _: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let groups = p.groups();
    for block in begin as usize..end as usize {
        for c in 0..4 {
            let row = block * 4 + c;
            let real = row < p.o as usize;
            let mut lost = 0.0;
            for g in 0..groups {
                let (mut q, mut scale) = ([0; GROUP], 0.0);
                if real {
                    let group = row.wrapping_mul(groups).wrapping_add(g);
                    if p.format != INT8 {
                        scale = Half::load1(at(p.scales as *const u8, group, 2), 0);
                        lost += scale * 0.0;
                    }
                    let (from, n) = p.file_group(row, g);
                    for (j, to) in q.iter_mut().enumerate().take(n) {
                        *to = if p.format == INT4_G32 {
                            (*from.add(j / 2) >> (j % 2 * 4) & 15) as i8 - 8
                        } else {
                            *from.add(j) as i8
                        };
                    }
                }
                write_group(p.record(block, g), p.format, c, &q, scale);
            }
            *p.row_float(row) = match (p.format, real) {
                (INT8, true) => *(p.scales as *const f32).add(row),
                _ => lost,
            };
        }
    }
}

/// The reverse of [`pack_weight`].
#[no_mangle]
pub unsafe extern "C" fn unpack_weight(params: *const Weights, _: *mut u8, begin: u32, end: u32) {
    let p = &*params;
    let groups = p.groups();
    for row in begin as usize * 4..(end as usize * 4).min(p.o as usize) {
        if p.format == INT8 {
            *(p.scales as *mut f32).add(row) = *p.row_float(row);
        }
        for g in 0..groups {
            let (q, _) = read_group(p.record(row / 4, g), p.format, row % 4);
            let group = row.wrapping_mul(groups).wrapping_add(g);
            if p.format != INT8 {
                let bits = (p.record(row / 4, g) as *const u16).add(row % 4).read_unaligned();
                *(p.scales as *mut u16).wrapping_add(group) = bits;
            }
            let (to, n) = p.file_group(row, g);
            if p.format == INT4_G32 {
                for j in 0..n / 2 {
                    *to.add(j) = (q[2 * j] + 8) as u8 | ((q[2 * j + 1] + 8) as u8) << 4;
                }
            } else {
                for (j, &x) in q.iter().enumerate().take(n) {
                    *to.add(j) = x as u8;
                }
            }
        }
    }
}
