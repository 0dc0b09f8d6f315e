/**
 * What a model is built from, and what it tells about its parts.
 *
 * @module
 */
import type { KvDType } from "../cache/kv_dtype.ts";
import type { PretrainedConfig } from "../config.ts";
import type { Device, DeviceName } from "../devices/device.ts";
import type { Parameters } from "../layers/parameter.ts";

/** One row of `model.attention_report()`. */
export interface AttentionReportRow {
  /** Name of the layer. */
  readonly layer: string;
  /** Its attention implementation. */
  readonly implementation: string;
  /** Where it computes. */
  readonly device: DeviceName;
  /** What led to this choice. */
  readonly why: string;
}

/** What a model is built from. */
export interface ModelParts {
  readonly config: PretrainedConfig;
  readonly parameters: Parameters;
  readonly device: Device;
  /** Type caches keep keys and values in; default: what layers compute. */
  readonly kv_dtype?: KvDType | null;
  /** Why the config's attention implementation is what it is. */
  readonly why?: string;
  /** Loads the weights once more, from where they came from; absent where they came from nowhere. */
  readonly reload?: (device: Device) => Promise<Parameters>;
  /** Name of the class in Transformers, for the configs of saved models. */
  readonly class_name?: string;
}
