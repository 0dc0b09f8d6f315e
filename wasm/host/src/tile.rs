//! Encodes a score function, given as a postfix program, as a WASM module with one function `tile`.
//!
//! `tile(scores, ld, b, h, q0, k0, rows, cols, params)` replaces every f32 of a `rows` x `cols` tile by the
//! value of the program. `scores` and `params` are byte addresses in the imported `env.memory`; `ld` is the
//! distance of two rows in elements. Four columns are computed at a time with SIMD and the rest one by one,
//! with the same operations in the same order, so a value does not depend on its column.
//!
//! Every value is an f32. Indices are exact below 2^24. Comparisons give 1 or 0.
//!
//! Length: the operations and the two loops they are emitted into are read together or not at all.

use crate::bytecode::{advance, get, int, leb, section, set, simd, splat_bits};
use crate::json::MAX_SAFE;

const MAX_OPS: usize = 256;
const MAX_STACK: usize = 64;
const MAX_PARAMS: u64 = 1 << 16;

/// The operations, by code. `(name, operands taken from the stack, arguments taken from the list)`.
pub const OPS: [(&str, usize, usize); 22] = [
    ("score", 0, 0),
    ("b", 0, 0),
    ("h", 0, 0),
    ("q", 0, 0),
    ("k", 0, 0),
    ("const", 0, 1),  // value
    ("param", 0, 1),  // index: params[index]
    ("lookup", 1, 2), // base, count: params[base + clamp(trunc(x), 0, count - 1)]
    ("add", 2, 0),
    ("sub", 2, 0),
    ("mul", 2, 0),
    ("div", 2, 0),
    ("max", 2, 0),
    ("min", 2, 0),
    ("neg", 1, 0),
    ("abs", 1, 0),
    ("floor", 1, 0),
    ("sqrt", 1, 0),
    ("lt", 2, 0),
    ("le", 2, 0),
    ("eq", 2, 0),
    ("select", 3, 0), // condition, then, else
];

/// Opcodes of the elementwise operations, from `add` (code 8) to `eq`: (scalar, SIMD).
const ELEMENTWISE: [(u8, u8); 13] = [
    (0x92, 0xe4),
    (0x93, 0xe5),
    (0x94, 0xe6),
    (0x95, 0xe7),
    (0x97, 0xe9),
    (0x96, 0xe8),
    (0x8c, 0xe1),
    (0x8b, 0xe0),
    (0x8e, 0x68),
    (0x91, 0xe3),
    (0x5d, 0x43),
    (0x5f, 0x45),
    (0x5b, 0x41),
];
const FIRST_ELEMENTWISE: u8 = 8;
const FIRST_COMPARISON: u8 = 18;
const SELECT: u8 = 21;

/// Operation code and its arguments.
type Step = (u8, u64, u64, f32);

// The parameters of `tile`, then its locals.
const SCORES: u8 = 0;
const LD: u8 = 1;
const B: u8 = 2;
const H: u8 = 3;
const Q0: u8 = 4;
const K0: u8 = 5;
const ROWS: u8 = 6;
const COLS: u8 = 7;
const PARAMS: u8 = 8;
const ROW: u8 = 9;
const COL: u8 = 10;
const PTR: u8 = 11;
const INT: u8 = 12;
const THEN: u8 = 13;
const ELSE: u8 = 14;
const V_THEN: u8 = 15;
const V_ELSE: u8 = 16;
const V_INT: u8 = 17;

const I32: u8 = 0x7f;
const F32: u8 = 0x7d;
const V128: u8 = 0x7b;

/// Encodes the program `ops`, whose arguments follow one another in `args`.
pub fn encode(ops: &[u8], args: &[f64], shared: bool) -> Result<Vec<u8>, String> {
    let steps = check(ops, args).map_err(|e| format!("Cannot encode the score function: {e}"))?;
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut types = vec![1, 0x60, 9];
    types.extend([I32; 9]);
    types.push(0);
    section(&mut module, 1, &types);
    let mut imports = vec![1, 3];
    imports.extend(b"env");
    imports.push(6);
    imports.extend(b"memory");
    imports.push(2);
    // A shared import must state a maximum; 65536 pages admits every memory.
    imports.extend(if shared { &[3, 0, 0x80, 0x80, 0x04][..] } else { &[0, 0][..] });
    section(&mut module, 2, &imports);
    section(&mut module, 3, &[1, 0]);
    section(&mut module, 7, b"\x01\x04tile\x00\x00");
    let body = function(&steps);
    let mut code = vec![1];
    leb(&mut code, body.len() as u64);
    code.extend(body);
    section(&mut module, 10, &code);
    Ok(module)
}

fn check(ops: &[u8], args: &[f64]) -> Result<Vec<Step>, String> {
    if ops.is_empty() || ops.len() > MAX_OPS {
        return Err(format!("expected 1 to {MAX_OPS} operations, found {}", ops.len()));
    }
    let mut steps = Vec::with_capacity(ops.len());
    let mut args = args.iter();
    let mut depth = 0;
    for (at, &op) in ops.iter().enumerate() {
        let Some(&(name, takes, count)) = OPS.get(usize::from(op)) else {
            return Err(format!("operation {at} has the unknown code {op}"));
        };
        let refuse = |what: &str| Err(format!("operation {at} ({name}): {what}"));
        if depth < takes {
            return refuse(&format!("expected {takes} values on the stack, found {depth}"));
        }
        depth = depth - takes + 1;
        if depth > MAX_STACK {
            return refuse(&format!("expected at most {MAX_STACK} values on the stack"));
        }
        let (mut numbers, mut value) = ([0, 0], 0.0);
        for (i, number) in numbers.iter_mut().enumerate().take(count) {
            let Some(&arg) = args.next() else {
                return refuse(&format!("expected {count} arguments, found {i}"));
            };
            if name == "const" {
                value = arg as f32;
                if value.is_nan() {
                    return refuse("expected a number, found NaN");
                }
            } else if arg >= 0.0 && arg < MAX_SAFE as f64 && arg as u64 as f64 == arg {
                *number = arg as u64;
            } else {
                return refuse(&format!("expected a non-negative integer, found {arg}"));
            }
        }
        let last = match name {
            "param" => numbers[0] + 1,
            "lookup" if numbers[1] == 0 => return refuse("expected a table of at least one value"),
            "lookup" => numbers[0] + numbers[1],
            _ => 0,
        };
        if last > MAX_PARAMS {
            return refuse(&format!("expected at most {MAX_PARAMS} parameters, found index {}", last - 1));
        }
        steps.push((op, numbers[0], numbers[1], value));
    }
    if args.next().is_some() {
        return Err(String::from("expected no more arguments after the last operation"));
    }
    if depth != 1 {
        return Err(format!("expected one value left on the stack, found {depth}"));
    }
    Ok(steps)
}

fn function(steps: &[Step]) -> Vec<u8> {
    // Four i32 locals, two f32, three v128.
    let mut out = vec![3, 4, I32, 2, F32, 3, V128];
    out.extend([0x02, 0x40, 0x03, 0x40]); // block, loop over rows
    get(&mut out, ROW);
    get(&mut out, ROWS);
    out.extend([0x4e, 0x0d, 1]); // leave when row >= rows
    get(&mut out, SCORES);
    get(&mut out, ROW);
    get(&mut out, LD);
    out.push(0x6c);
    int(&mut out, 2);
    out.extend([0x74, 0x6a]);
    set(&mut out, PTR);
    int(&mut out, 0);
    set(&mut out, COL);
    for lanes in [4u64, 1] {
        out.extend([0x02, 0x40, 0x03, 0x40]);
        get(&mut out, COLS);
        get(&mut out, COL);
        out.push(0x6b);
        int(&mut out, lanes);
        out.extend([0x48, 0x0d, 1]); // leave when fewer columns are left
        get(&mut out, PTR);
        for step in steps {
            if lanes == 4 {
                vector(&mut out, step);
            } else {
                scalar(&mut out, step);
            }
        }
        // Stores with the alignment of an f32.
        if lanes == 4 {
            simd(&mut out, 0x0b);
        } else {
            out.push(0x38);
        }
        out.extend([2, 0]);
        advance(&mut out, PTR, 4 * lanes);
        advance(&mut out, COL, lanes);
        out.extend([0x0c, 0, 0x0b, 0x0b]);
    }
    advance(&mut out, ROW, 1);
    out.extend([0x0c, 0, 0x0b, 0x0b, 0x0b]);
    out
}

/// Pushes an index as i32: `b`, `h`, `q0 + row` or `k0 + col`.
fn index(out: &mut Vec<u8>, op: u8) {
    match op {
        1 => get(out, B),
        2 => get(out, H),
        _ => {
            get(out, if op == 3 { Q0 } else { K0 });
            get(out, if op == 3 { ROW } else { COL });
            out.push(0x6a);
        }
    }
}

fn scalar(out: &mut Vec<u8>, &(op, first, second, value): &Step) {
    match op {
        0 => {
            get(out, PTR);
            out.extend([0x2a, 2, 0]);
        }
        1..=4 => {
            index(out, op);
            out.push(0xb2);
        }
        5 => {
            out.push(0x43);
            out.extend(value.to_bits().to_le_bytes());
        }
        6 => {
            get(out, PARAMS);
            out.extend([0x2a, 2]);
            leb(out, 4 * first);
        }
        7 => {
            out.extend([0xfc, 0]); // i32.trunc_sat_f32_s: NaN gives 0
            for (bound, compare) in [(0, 0x4a), (second - 1, 0x48)] {
                out.extend([0x22, INT]);
                int(out, bound);
                get(out, INT);
                int(out, bound);
                out.extend([compare, 0x1b]);
            }
            load_entry(out, first);
        }
        SELECT => {
            set(out, ELSE);
            set(out, THEN);
            out.push(0x43);
            out.extend([0; 4]);
            out.push(0x5c); // condition != 0
            set(out, INT);
            get(out, THEN);
            get(out, ELSE);
            get(out, INT);
            out.push(0x1b);
        }
        _ => {
            out.push(ELEMENTWISE[usize::from(op - FIRST_ELEMENTWISE)].0);
            if op >= FIRST_COMPARISON {
                out.push(0xb2); // 1 or 0
            }
        }
    }
}

/// Takes an index and pushes `params[base + index]`.
fn load_entry(out: &mut Vec<u8>, base: u64) {
    int(out, 2);
    out.push(0x74);
    get(out, PARAMS);
    out.extend([0x6a, 0x2a, 2]);
    leb(out, 4 * base);
}

fn vector(out: &mut Vec<u8>, &(op, first, second, value): &Step) {
    match op {
        0 => {
            get(out, PTR);
            simd(out, 0x00);
            out.extend([2, 0]);
        }
        1..=4 => {
            index(out, op);
            simd(out, 0x11); // i32x4.splat
            if op == 4 {
                simd(out, 0x0c);
                for lane in 0..4u32 {
                    out.extend(lane.to_le_bytes());
                }
                simd(out, 0xae); // i32x4.add
            }
            simd(out, 0xfa); // f32x4.convert_i32x4_s
        }
        5 => splat_bits(out, value.to_bits()),
        6 => {
            get(out, PARAMS);
            simd(out, 0x09); // v128.load32_splat
            out.push(2);
            leb(out, 4 * first);
        }
        7 => {
            simd(out, 0xf8); // i32x4.trunc_sat_f32x4_s
            splat_bits(out, 0);
            simd(out, 0xb8); // i32x4.max_s
            splat_bits(out, (second - 1) as u32);
            simd(out, 0xb6); // i32x4.min_s
            set(out, V_INT);
            for lane in 0..4u8 {
                get(out, V_INT);
                simd(out, 0x1b);
                out.push(lane);
                load_entry(out, first);
                if lane == 0 {
                    simd(out, 0x13); // f32x4.splat
                } else {
                    simd(out, 0x20); // f32x4.replace_lane
                    out.push(lane);
                }
            }
        }
        SELECT => {
            set(out, V_ELSE);
            set(out, V_THEN);
            splat_bits(out, 0);
            simd(out, 0x42); // f32x4.ne
            set(out, V_INT);
            get(out, V_THEN);
            get(out, V_ELSE);
            get(out, V_INT);
            simd(out, 0x52); // v128.bitselect
        }
        _ => {
            simd(out, ELEMENTWISE[usize::from(op - FIRST_ELEMENTWISE)].1);
            if op >= FIRST_COMPARISON {
                splat_bits(out, 1f32.to_bits());
                simd(out, 0x4e); // v128.and
            }
        }
    }
}

#[cfg(test)]
#[path = "tile_test.rs"]
mod tests;
