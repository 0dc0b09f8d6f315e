/** Products, normalisation and lookups: the layers' arithmetic. @module */
import { isFloat } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import type { Device, View } from "../devices/device.ts";
import { tidy } from "../scope.ts";
import { hostData, Tensor } from "../tensor.ts";
import { broadcastShapes, expandView, placeOf, reshapedView, viewAs } from "./place.ts";

/** Batched matrix product (…, M, N) · (…, N, P), or with `transpose_b` (…, M, N) · (…, P, N)ᵀ, batch dimensions broadcast. */
export function matmul(a: Tensor, b: Tensor, options: { transpose_b?: boolean } = {}): Tensor {
  const transpose_b = options.transpose_b ?? false;
  const ra = a.shape.length;
  const rb = b.shape.length;
  const [m, n] = [a.shape[ra - 2], a.shape[ra - 1]];
  const [p, nb] = transpose_b ? [b.shape[rb - 2], b.shape[rb - 1]] : [b.shape[rb - 1], b.shape[rb - 2]];
  if (m === undefined || n === undefined || p === undefined || nb !== n) {
    throw new InvalidArgument(
      `Cannot matmul tensors of shapes [${a.shape}] and [${b.shape}]${
        transpose_b ? " (b transposed)" : ""
      }: inner dimensions must agree`,
    );
  }
  const batch = broadcastShapes([a.shape.slice(0, -2), b.shape.slice(0, -2)], "matmul");
  return tidy(() => {
    const device = placeOf([a, b], "matmul");
    const out = Tensor.empty(device, "float32", [...batch, m, p]);
    const x = expandView(viewAs(a, "float32", device), [...batch, m, n]);
    const y = expandView(viewAs(b, "float32", device), [...batch, ...b.shape.slice(-2)]);
    device.kernels.matmul(x, y, out.on(device), transpose_b);
    return out;
  });
}

/** `x · weightᵀ + bias`: x (…, I), weight (O, I) of any float dtype, bias (O) → (…, O). */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const inner = x.shape[x.shape.length - 1];
  const [o, i] = weight.shape;
  if (
    weight.shape.length !== 2 || inner !== i || !isFloat(weight.dtype) ||
    (bias !== null && (bias.shape.length !== 1 || bias.shape[0] !== o))
  ) {
    throw new InvalidArgument(
      `Cannot apply a linear layer of weight ${weight.dtype} [${weight.shape}]${
        bias === null ? "" : `, bias [${bias.shape}]`
      } to [${x.shape}]: expected x (…, I), weight (O, I), bias (O)`,
    );
  }
  return tidy(() => {
    const device = placeOf(bias === null ? [weight, x] : [weight, bias, x], "linear");
    const rows = rowsOf(x, device);
    const out = Tensor.empty(device, "float32", [...x.shape.slice(0, -1), o!]);
    const b = bias === null ? null : viewAs(bias, "float32", device);
    device.kernels.linear(rows, weight.on(device), b, rowsOf(out, device));
    return out;
  });
}

/** `x` as (rows, columns) float32. */
function rowsOf(x: Tensor, device: Device): View {
  const columns = x.shape[x.shape.length - 1]!;
  return reshapedView(x, [x.size / Math.max(columns, 1), columns], "float32", device);
}

/**
 * Rows of `weight` (V, E) picked by integer ids of any shape → (…, E) float32.
 *
 * @throws {InvalidArgument} for ids outside 0…V−1
 */
export function embedding(input_ids: Tensor, weight: Tensor): Tensor {
  const [v, e] = weight.shape;
  if (weight.shape.length !== 2 || isFloat(input_ids.dtype) || !isFloat(weight.dtype)) {
    throw new InvalidArgument(
      `Cannot embed ${input_ids.dtype} [${input_ids.shape}] with weight ${weight.dtype} [${weight.shape}]: expected integer ids and a (V, E) float weight`,
    );
  }
  if (input_ids.storage.host !== null) {
    const ids = hostData(input_ids);
    for (let i = 0; i < ids.length; i++) {
      const id = Number(ids[i]);
      if (!(id >= 0 && id < v!)) {
        throw new InvalidArgument(
          `Cannot embed token id ${id} (element ${i}): the vocabulary has ids 0…${v! - 1}`,
        );
      }
    }
  }
  return tidy(() => {
    const device = placeOf([weight, input_ids], "embedding");
    const ids = reshapedView(input_ids, [input_ids.size], "int32", device);
    const out = Tensor.empty(device, "float32", [...input_ids.shape, e!]);
    device.kernels.embedding(ids, weight.on(device), rowsOf(out, device));
    return out;
  });
}

/** Root-mean-square normalisation over the last dimension (Zhang & Sennrich 2019): `x · rsqrt(mean(x²) + eps) · (weight + unit_offset)`. */
export function rms_norm(
  x: Tensor,
  weight: Tensor | null = null,
  options: { eps?: number; unit_offset?: number } = {},
): Tensor {
  const { eps = 1e-6, unit_offset = 0 } = options;
  const n = x.shape[x.shape.length - 1];
  if (n === undefined || (weight !== null && (weight.shape.length !== 1 || weight.shape[0] !== n))) {
    throw new InvalidArgument(
      `Cannot normalise [${x.shape}] with weight [${
        weight?.shape ?? ""
      }]: expected a weight of ${n} elements`,
    );
  }
  return tidy(() => {
    const device = placeOf(weight === null ? [x] : [weight, x], "rms_norm");
    const rows = rowsOf(x, device);
    const out = Tensor.empty(device, "float32", x.shape);
    const w = weight === null ? null : viewAs(weight, "float32", device);
    device.kernels.rms_norm(rows, w, eps, unit_offset, rowsOf(out, device));
    return out;
  });
}

/** Layer normalisation over the last dimension (Ba et al. 2016). */
export function layer_norm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: { eps?: number } = {},
): Tensor {
  const { eps = 1e-5 } = options;
  const n = x.shape[x.shape.length - 1];
  if (
    n === undefined || weight.shape.length !== 1 || weight.shape[0] !== n ||
    (bias !== null && bias.shape[0] !== n)
  ) {
    throw new InvalidArgument(
      `Cannot normalise [${x.shape}] with weight [${weight.shape}]: expected a weight of ${n} elements`,
    );
  }
  return tidy(() => {
    const device = placeOf(bias === null ? [weight, x] : [weight, bias, x], "layer_norm");
    const rows = rowsOf(x, device);
    const out = Tensor.empty(device, "float32", x.shape);
    const w = viewAs(weight, "float32", device);
    const b = bias === null ? null : viewAs(bias, "float32", device);
    device.kernels.layer_norm(rows, w, b, eps, rowsOf(out, device));
    return out;
  });
}
