/**
 * Operations for people who write their own attention: PyTorch's names, NumPy's broadcasting, both devices.
 *
 * Every operation returns a new tensor at once; only reading values waits. Float operations compute and return
 * float32 (half types are storage, widened on load; {@linkcode cast} narrows). Integers compute in int32.
 * Wrap intermediate work in {@linkcode tidy}, or hold results with `using`.
 *
 * @module
 */
export {
  add,
  cast,
  div,
  exp,
  gelu,
  log,
  maximum,
  mul,
  neg,
  quick_gelu,
  relu,
  sigmoid,
  silu,
  silu_mul,
  sqrt,
  sub,
  tanh,
  where,
} from "./elementwise.ts";
export { argmax, max, mean, softmax, sum } from "./reduce.ts";
export { cat, permute, repeat_kv, reshape, slice, transpose } from "./shape.ts";
export { embedding, layer_norm, linear, matmul, rms_norm } from "./matrix.ts";
export { arange, full, zeros } from "./make.ts";
export { keep, tidy } from "../scope.ts";
