/**
 * How the weights of a model get onto another device.
 *
 * @module
 */
import type { Device } from "../devices/device.ts";
import { EngineFailure } from "../errors.ts";
import type { Parameters } from "../layers/parameter.ts";
import type { ModelParts } from "./parts.ts";

/** Puts weights onto a device, and promises what makes the model use them. */
export type Mover = (target: Device) => Promise<() => void>;

/**
 * What moves `parameters` away from a device: a copy, or where the device has failed the files they came from.
 *
 * @throws {EngineFailure} when it has failed and they came from no files
 */
export function moverOf(parameters: Parameters, from: Device, reload: ModelParts["reload"]): Mover {
  if (!from.isClosed) return (target) => parameters.copyTo(target);
  if (reload === undefined) {
    throw new EngineFailure(
      `Cannot move the model: its weights were on a ${from.name} device that has failed, and they came from no ` +
        "files; save_pretrained keeps what from_config makes",
    );
  }
  return async (target) => {
    const fresh = await reload(target);
    try {
      return parameters.replacedBy(fresh);
    } catch (error) {
      fresh.dispose();
      throw error;
    }
  };
}
