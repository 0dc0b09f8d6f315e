// Sum, maximum or mean of the last dimension: x (…, N) -> out (…). One workgroup per row.
//
// Each of 64 invocations takes every 64th element and a fixed tree joins them: the order of additions depends
// on N alone, and neighbours read neighbouring words. A maximum is found among integers in the order of the floats,
// because GPU arithmetic may take no notice of NaN, which is larger than everything here.

//#flags OP=sum INTEGER=false SUBGROUPS=false
const RANK: u32 = 1u; //#constant
alias Value = f32; //#alias OUT
const THREADS: u32 = 64u;

struct Params {
  shape: array<vec4<u32>, 2>, // dimensions of out, innermost first
  x_strides: array<vec4<u32>, 2>,
  out_strides: array<vec4<u32>, 2>,
  rows: u32,
  pitch: u32, // workgroups per row of the grid
  x_offset: u32,
  out_offset: u32,
  n: u32,
  n_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; //#storage IN
//#if OP == max
//| @group(0) @binding(2) var<storage, read_write> out: array<u32>;
//| var<workgroup> part: array<u32, 64>;
//#else
@group(0) @binding(2) var<storage, read_write> out: array<f32>; //#storage OUT
var<workgroup> part: array<Value, 64>;
//#endif

fn load_x(i: u32) -> Value { return x[i]; } //#load x IN

//#if OP == max
//| // Grows with the value.
//| fn rank_of(v: Value) -> u32 {
  //| let bits = bitcast<u32>(v);
  //#if INTEGER
  //| return bits ^ 0x80000000u;
  //#else
  //| let magnitude = bits & 0x7fffffffu;
  //| if (magnitude > 0x7f800000u) { return 0xffffffffu; }
  //| if (magnitude == bits || magnitude == 0u) { return magnitude | 0x80000000u; }
  //| return ~bits;
  //#endif
//| }
//#endif

@compute @workgroup_size(64)
fn main(
  //#if SUBGROUPS
  //| @builtin(subgroup_size) size: u32,
  //| @builtin(subgroup_invocation_id) lane: u32,
  //#endif
  @builtin(workgroup_id) wg: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let row = wg.y * p.pitch + wg.x;
  if (row >= p.rows) { return; }
  var rest = row;
  var xi = p.x_offset;
  var oi = p.out_offset;
  //#unroll
  for (var d = 0u; d < RANK; d++) {
    let at = rest % p.shape[d / 4u][d % 4u];
    rest /= p.shape[d / 4u][d % 4u];
    xi += at * p.x_strides[d / 4u][d % 4u];
    oi += at * p.out_strides[d / 4u][d % 4u];
  }
  //#if OP == max
  //| var acc = rank_of(load_x(xi));
  //#else
  var acc = Value(0);
  //#endif
  for (var j = t; j < p.n; j += THREADS) {
    //#if OP == max
    //| acc = max(acc, rank_of(load_x(xi + j * p.n_stride)));
    //#else
    acc += load_x(xi + j * p.n_stride);
    //#endif
  }
  //#if SUBGROUPS
  //#if OP == max
  //| acc = subgroupMax(acc);
  //#else
  //| acc = subgroupAdd(acc);
  //#endif
  //| if (lane == 0u) { part[t / size] = acc; }
  //| workgroupBarrier();
  //| if (t == 0u) {
    //| for (var i = 1u; i < THREADS / size; i++) {
      //#if OP == max
      //| part[0] = max(part[0], part[i]);
      //#else
      //| part[0] += part[i];
      //#endif
    //| }
  //| }
  //#else
  part[t] = acc;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (t < half) {
      //#if OP == max
      //| part[t] = max(part[t], part[t + half]);
      //#else
      part[t] += part[t + half];
      //#endif
    }
  }
  //#endif
  if (t == 0u) {
    //#if OP == mean
    //| out[oi] = part[0] / Value(p.n);
    //#elif OP == max && INTEGER
    //| out[oi] = part[0] ^ 0x80000000u;
    //#elif OP == max
    //| out[oi] = select(~part[0], part[0] & 0x7fffffffu, part[0] >= 0x80000000u);
    //#else
    out[oi] = part[0];
    //#endif
  }
}
