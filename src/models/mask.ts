/**
 * Masks on their way from a builder to the layers.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import type { AttentionMask } from "../masks/types.ts";
import { Tensor } from "../tensor.ts";
import { ownCopy } from "./inputs.ts";

/**
 * A mask the forward may dispose: builders pass a caller's finished mask through, which then is copied, and moved
 * if it was made for another device.
 */
export async function ownedMask(
  mask: AttentionMask,
  given: unknown,
  device: DeviceName,
): Promise<AttentionMask> {
  if (!(mask instanceof Tensor)) return mask;
  if (mask !== given && mask.device === device) return mask;
  if (mask.storage.host !== null) return ownCopy(mask, device);
  return await mask.to(device);
}
