// Rows of a table by id: ids (N), weight (V, E) -> out (N, E). One invocation per element.

struct Params {
  count: u32, // N * E
  pitch: u32, // invocations per row of the grid
  e: u32,
  ids_offset: u32,
  ids_stride: u32,
  weight_offset: u32,
  weight_row: u32,
  weight_col: u32,
  out_offset: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>; //#storage WEIGHT
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn load_weight(i: u32) -> f32 { return weight[i]; } //#load weight WEIGHT

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.y * p.pitch + id.x;
  if (i >= p.count) { return; }
  let row = ids[p.ids_offset + i / p.e * p.ids_stride];
  out[p.out_offset + i] = load_weight(p.weight_offset + row * p.weight_row + i % p.e * p.weight_col);
}
