// Hides from raw scores (B, H, Q, K) what a mask by blocks does not show, by LOWEST, for eager.wgsl.
//
// One workgroup per row, which walks the row's list of blocks of keys; see flash.wgsl.

const THREADS: u32 = 64u;
const LOWEST: f32 = -3.4028234e38;

struct Params {
  rows: u32, // B * H * Q
  pitch: u32, // workgroups per row of the grid
  heads: u32,
  q: u32,
  k: u32,
  weights_offset: u32,
  block_q: u32, // queries and keys of a block
  block_k: u32,
  lists_offset: u32,
  list_b: u32,
  list_h: u32,
  list_q: u32,
  entries_offset: u32,
  bits_offset: u32,
  bits_block: u32,
  bits_q: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> weights: array<f32>; // (B, H, Q, K)
@group(0) @binding(2) var<storage, read> lists: array<u32>; // (B, H, query blocks, 2) by strides, and entries (n, 2): a block of keys, its bits or -1
@group(0) @binding(3) var<storage, read> bits: array<u32>; // (m, block_q, bytes), a byte a word: bit j % 8 of byte j / 8 is key j of the block

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  let i = row % p.q;
  let h = row / p.q % p.heads;
  let b = row / p.q / p.heads;
  let at = p.weights_offset + row * p.k;
  let list = p.lists_offset + b * p.list_b + h * p.list_h + i / p.block_q * p.list_q;
  let bits_row = p.bits_offset + i % p.block_q * p.bits_q;
  var done = 0u;
  for (var e = lists[list]; e < lists[list + 1u]; e++) {
    let first = lists[p.entries_offset + 2u * e] * p.block_k;
    let own = lists[p.entries_offset + 2u * e + 1u];
    let end = min(first + p.block_k, p.k);
    for (var j = done + t; j < first; j += THREADS) { weights[at + j] = LOWEST; }
    if (own != 0xffffffffu) {
      for (var j = t; j < end - first; j += THREADS) {
        let seen = (bits[bits_row + own * p.bits_block + j / 8u] >> (j % 8u)) & 1u;
        if (seen == 0u) { weights[at + first + j] = LOWEST; }
      }
    }
    done = end;
  }
  for (var j = done + t; j < p.k; j += THREADS) { weights[at + j] = LOWEST; }
}
