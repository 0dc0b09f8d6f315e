// Half-split rotary position embedding (Su et al. 2021, in the layout of GPT-NeoX and Llama):
// x (B, H, N, D), table (rows, D) = [cos | sin], positions (B, N) -> out (B, H, N, D) contiguous.
//
// One invocation per pair (d, d + D/2). Angles come from a table because GPU sines lose all accuracy far from 0.

struct Params {
  count: u32, // B * H * N * D / 2
  pitch: u32, // invocations per row of the grid
  heads: u32,
  n: u32,
  half_d: u32,
  x_offset: u32,
  x_b: u32,
  x_h: u32,
  x_n: u32,
  x_d: u32,
  table_offset: u32,
  table_row: u32,
  table_col: u32,
  positions_offset: u32,
  positions_b: u32,
  positions_n: u32,
  out_offset: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; //#storage IN
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn load_x(i: u32) -> f32 { return x[i]; } //#load x IN

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.y * p.pitch + id.x;
  if (i >= p.count) { return; }
  let d = i % p.half_d;
  let row = i / p.half_d;
  let n = row % p.n;
  let h = row / p.n % p.heads;
  let b = row / p.n / p.heads;
  let angle = p.table_offset + positions[p.positions_offset + b * p.positions_b + n * p.positions_n] * p.table_row;
  let c = table[angle + d * p.table_col];
  let s = table[angle + (d + p.half_d) * p.table_col];
  let xi = p.x_offset + b * p.x_b + h * p.x_h + n * p.x_n + d * p.x_d;
  let low = load_x(xi);
  let high = load_x(xi + p.half_d * p.x_d);
  let oi = p.out_offset + row * p.half_d * 2u + d;
  out[oi] = low * c - high * s;
  out[oi + p.half_d] = high * c + low * s;
}
