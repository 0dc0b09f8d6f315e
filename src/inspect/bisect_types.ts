/**
 * What is asked of {@linkcode bisect_attention}, and what it answers.
 *
 * @module
 */
import type { Tolerance } from "../attention/tolerance.ts";
import type { AttnImplementation } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import type { Tensor } from "../tensor.ts";
import type { ElementDifference } from "./compare.ts";
import type { ReceivedMask } from "./mask_at.ts";

/** One of the two that are compared. */
export interface BisectSide {
  /** The model; both sides may have the same one. */
  readonly model: PreTrainedModel;
  /** What it uses while it is compared; default: what it uses now. */
  readonly attn_implementation?: AttnImplementation;
}

/** The prompt. */
export interface BisectInputs {
  /** (B, N) token ids. */
  readonly input_ids: Tensor;
  /** (B, N) with 1 for real tokens, padded on the left where tokens are generated. Padding is not compared. */
  readonly attention_mask?: Tensor;
  /** Images of a vision model, (images, C, H, W). */
  readonly pixel_values?: Tensor;
  /** (B, N) segments of an encoder's tokens. */
  readonly token_type_ids?: Tensor;
}

/** Where a comparison is. */
export interface BisectProgress {
  /** The forward that runs: 0 is the prompt, i the i-th new token. */
  readonly step: number;
  /** Number of forwards, the prompt's included. */
  readonly steps: number;
  /** Which of the two runs. */
  readonly side: "a" | "b";
}

/** Options of {@linkcode bisect_attention}. */
export interface BisectOptions {
  /** Tokens the first side chooses and both then run; default 4, or 0 for a model without a head. */
  readonly max_new_tokens?: number;
  /**
   * Largest difference of attention over the same inputs, as it stands. Default: the sum of what the two devices'
   * kernels may be off, the absolute part times the largest |value| of the layer.
   */
  readonly tolerance?: Tolerance;
  /** As `tolerance` for what each side computed in its own run, earlier differences included; default likewise. */
  readonly run_tolerance?: Tolerance;
  /** Bytes of tensors kept at once while a step is compared; with less, forwards are repeated. Default 256 MiB. */
  readonly capture_bytes?: number;
  /** Called before every forward. */
  readonly progress_callback?: (progress: BisectProgress) => void;
  /** Stops the comparison. */
  readonly signal?: AbortSignal;
}

/** How far the outputs of a layer are apart. */
export interface DifferenceSummary {
  /** Largest |a − b|; infinite where one of them is not a number. */
  readonly max_abs: number;
  /** That, in parts of the layer's largest |a|. */
  readonly relative: number;
  /** Root of the mean square of a − b, of the step where it was largest. */
  readonly rms: number;
  /** Largest `|a − b|` in parts of what is allowed. */
  readonly ratio: number;
  /** The element it was in; null where all are equal. */
  readonly worst: ElementDifference | null;
}

/** A layer over all steps that were run. */
export interface LayerComparison {
  /** Name of the layer. */
  readonly layer: string;
  /** Both functions over the inputs of the first side: what this layer's attention does by itself. */
  readonly isolated: DifferenceSummary;
  /** Each side in its own run: with what earlier layers, tokens and projections brought. */
  readonly in_run: DifferenceSummary;
  /** Largest isolated ratio at each position of the sequence (of a layer of images: at each patch). */
  readonly by_position: readonly number[];
}

/** One forward of both sides. */
export interface StepComparison {
  /** Position of its first token. */
  readonly position: number;
  /** Number of tokens. */
  readonly length: number;
  /** Largest difference of the logits that choose the next token, or of the last hidden states without a head. */
  readonly output: number;
  /** The token each side would choose next, by row; null without a head. */
  readonly greedy: { readonly a: readonly number[]; readonly b: readonly number[] } | null;
}

/** The first place where the two differ. */
export interface AttentionDivergence {
  /**
   * `"attention"`: the functions differ over the same inputs. `"inherited"`: here they agree, but what they were given
   * had drifted apart: by projections, norms, or many small differences before.
   */
  readonly origin: "attention" | "inherited";
  /** The forward: 0 is the prompt. */
  readonly step: number;
  /** Row of the batch. */
  readonly batch: number;
  /** Position of the query's token in the sequence. */
  readonly position: number;
  /** Its id; null in a layer of images. */
  readonly token_id: number | null;
  /** Name of the layer. */
  readonly layer: string;
  /** Its row in `attention_report()`. */
  readonly layer_index: number;
  /** Query head. */
  readonly head: number;
  /** All heads that differ at this token. */
  readonly heads: readonly number[];
  /** What the layer's attention does by itself in this step. */
  readonly isolated: DifferenceSummary;
  /** What came out of it in either run. */
  readonly in_run: DifferenceSummary;
  /** What the first side's function was given as its mask. */
  readonly mask_a: ReceivedMask;
  /** What the second's was given. */
  readonly mask_b: ReceivedMask;
}

/** One side as it was compared. */
export interface ComparedSide {
  /** Its implementation; of models with parts, by part. */
  readonly implementation: string;
  /** Where it computed. */
  readonly device: DeviceName;
}

/** The answer of {@linkcode bisect_attention}. */
export interface AttentionBisection {
  /** The first side. */
  readonly a: ComparedSide;
  /** The second side. */
  readonly b: ComparedSide;
  /** The first place where they differ, or null. */
  readonly divergence: AttentionDivergence | null;
  /** Allowed difference over the same inputs. */
  readonly tolerance: Tolerance;
  /** Allowed difference of the runs. */
  readonly run_tolerance: Tolerance;
  /** Whether absolute parts are multiplied by the largest |value| of a layer: by default, not for given ones. */
  readonly scaled: { readonly tolerance: boolean; readonly run_tolerance: boolean };
  /** The forwards that were run: up to the first divergence. */
  readonly steps: readonly StepComparison[];
  /** The layers in order. Those that no forward reached are not among them. */
  readonly layers: readonly LayerComparison[];
  /** The token ids both were run on, by row: the prompt and what the first side chose. */
  readonly tokens: readonly (readonly number[])[];
}
