//! The few forms of WASM bytecode that the encoder of score functions writes.

/// An unsigned LEB128 number.
pub fn leb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `i32.const` of a small non-negative number: the signed encoding needs its top bit clear.
pub fn int(out: &mut Vec<u8>, value: u64) {
    out.push(0x41);
    leb_signed(out, value);
}

fn leb_signed(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x40 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A section with its length.
pub fn section(module: &mut Vec<u8>, id: u8, bytes: &[u8]) {
    module.push(id);
    leb(module, bytes.len() as u64);
    module.extend(bytes);
}

/// `local.get`.
pub fn get(out: &mut Vec<u8>, local: u8) {
    out.extend([0x20, local]);
}

/// `local.set`.
pub fn set(out: &mut Vec<u8>, local: u8) {
    out.extend([0x21, local]);
}

/// A SIMD opcode.
pub fn simd(out: &mut Vec<u8>, op: u8) {
    out.push(0xfd);
    leb(out, u64::from(op));
}

/// A v128 constant of four equal 32-bit lanes.
pub fn splat_bits(out: &mut Vec<u8>, bits: u32) {
    simd(out, 0x0c);
    for _ in 0..4 {
        out.extend(bits.to_le_bytes());
    }
}

/// `local += step`.
pub fn advance(out: &mut Vec<u8>, local: u8, step: u64) {
    get(out, local);
    int(out, step);
    out.push(0x6a);
    set(out, local);
}
