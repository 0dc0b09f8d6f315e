// Writes some bytes of one word. Copies and buffer writes move whole words only, but a tensor of halves may
// start or end in the middle of one.

struct Params {
  word: u32,
  bits: u32,
  mask: u32, // 1 where `bits` counts
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(1)
fn main() {
  out[p.word] = (out[p.word] & ~p.mask) | (p.bits & p.mask);
}
