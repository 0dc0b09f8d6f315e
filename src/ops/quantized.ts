/** Products with quantised weights. @module */
import { packedWords, type QuantizedMatrix, type QuantizedView, roomWords } from "../devices/quantized.ts";
import type { Device } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import { placeOf, reshapedView, viewAs } from "./place.ts";

/** A packed matrix as kernels read it. */
export function quantizedView(
  packed: Tensor,
  { format, shape }: QuantizedMatrix,
  device: Device,
): QuantizedView {
  return { format, shape, packed: packed.on(device) };
}

/**
 * `x · weightᵀ + bias`: x (…, I), a weight (O, I) that `packed` int32 holds, bias (O) → (…, O).
 *
 * @throws {InvalidArgument} for shapes that do not fit
 */
export function linearQuantized(
  x: Tensor,
  packed: Tensor,
  matrix: QuantizedMatrix,
  bias: Tensor | null = null,
): Tensor {
  const [o, i] = matrix.shape;
  const inner = x.shape.at(-1);
  if (inner !== i || packed.size !== packedWords(matrix) || (bias !== null && bias.size !== o)) {
    throw new InvalidArgument(
      `Cannot apply a linear layer of ${matrix.format} weight [${matrix.shape}]${
        bias === null ? "" : `, bias [${bias.shape}]`
      } to [${x.shape}]: expected x (…, I), weight (O, I), bias (O)`,
    );
  }
  return tidy(() => {
    const device = placeOf(bias === null ? [packed, x] : [packed, bias, x], "linear");
    const rows = x.size / Math.max(i, 1);
    const from = reshapedView(x, [rows, i], "float32", device);
    const room = Tensor.empty(device, "int32", [roomWords(rows, i)]);
    const out = Tensor.empty(device, "float32", [...x.shape.slice(0, -1), o]);
    device.kernels.linear_quantized(
      from,
      quantizedView(packed, matrix, device),
      bias === null ? null : viewAs(bias, "float32", device),
      reshapedView(out, [rows, o], "float32", device),
      room.on(device),
    );
    return out;
  });
}
