/**
 * Where two implementations of attention, or two devices, begin to differ.
 *
 * @module
 */
import { ATTENTION_TOLERANCE, HIDDEN_TOLERANCE, type Tolerance } from "../attention/tolerance.ts";
import { InvalidArgument } from "../errors.ts";
import type { DeviceName } from "../devices/device.ts";
import type {
  AttentionBisection,
  AttentionDivergence,
  BisectInputs,
  BisectOptions,
  BisectSide,
  DifferenceSummary,
  LayerComparison,
  StepComparison,
} from "./bisect_types.ts";
import { attendOver, capture, captureBytes, type CapturedCall, magnitudeOf } from "./capture.ts";
import { compareOutputs, type OutputDifference } from "./compare.ts";
import { maskAt } from "./mask_at.ts";
import { checkInputs, type Finished, PairRun, Side } from "./pair.ts";
import type { AttentionTrace } from "./trace.ts";

/** Bytes of tensors kept at once. */
const CAPTURE_BYTES = 2 ** 28;
/** Tokens after the prompt. */
const NEW_TOKENS = 4;

/**
 * Finds the first token, layer and head in which two sides differ: two implementations on one model, or two models
 * with the same weights, such as one per device. Runs the prompt and then greedy tokens, which the first side chooses
 * for both, and compares the output of every attention call.
 *
 * Each layer is compared twice: as it ran, and with the second side's function over the first side's inputs. What the
 * second comparison finds was made by that layer's attention; what only the first one finds was inherited. A function
 * of yours is therefore called once more per layer.
 *
 * Where both sides have one model, its implementation is switched for each forward, and put back at the end: do not use
 * the model meanwhile.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { AutoModelForCausalLM, bisect_attention, Tensor } from "../../mod.ts";
 *
 * await using model = await AutoModelForCausalLM.from_pretrained("./tests/models/demo");
 * using input_ids = Tensor.from([[5, 6, 7]], { dtype: "int64" });
 * const { divergence } = await bisect_attention(
 *   { model, attn_implementation: "eager" },
 *   { model, attn_implementation: "flash_attention_2" },
 *   { input_ids },
 * );
 * assertEquals(divergence, null);
 * ```
 *
 * @throws {InvalidArgument} for unknown implementations, inputs that do not fit, or models that are not the same
 * @throws the signal's reason when aborted
 */
export async function bisect_attention(
  a: BisectSide,
  b: BisectSide,
  inputs: BisectInputs,
  options: BisectOptions = {},
): Promise<AttentionBisection> {
  const steps = 1 + checkInputs(a.model, inputs, options, NEW_TOKENS);
  const run = new PairRun(new Side("a", a), new Side("b", b), inputs, options.signal);
  const comparison = new Comparison(run, options);
  try {
    for (let step = 0; step < steps; step++) {
      if (await comparison.step(step, steps)) break;
    }
    return comparison.result();
  } finally {
    run[Symbol.dispose]();
  }
}

/** Both comparisons of a layer in one step, and the masks where it differs. */
interface LayerStep {
  readonly trace: AttentionTrace;
  readonly isolated: OutputDifference;
  readonly in_run: OutputDifference;
  readonly divergence: Pick<AttentionDivergence, "mask_a" | "mask_b" | "origin"> | null;
}

class Comparison {
  readonly #run: PairRun;
  readonly #options: BisectOptions;
  readonly #tolerance: Tolerance;
  readonly #run_tolerance: Tolerance;
  readonly #steps: StepComparison[] = [];
  readonly #layers = new Map<number, LayerComparison & { by_position: number[] }>();
  #divergence: AttentionDivergence | null = null;

  constructor(run: PairRun, options: BisectOptions) {
    this.#run = run;
    this.#options = options;
    const devices = [run.a.model.device, run.b.model.device] as const;
    this.#tolerance = options.tolerance ?? sum(ATTENTION_TOLERANCE, devices);
    this.#run_tolerance = options.run_tolerance ?? sum(HIDDEN_TOLERANCE, devices);
  }

  /** Compares one forward. Returns whether the sides differ in it. */
  async step(step: number, steps: number): Promise<boolean> {
    const { capture_bytes = CAPTURE_BYTES, progress_callback } = this.#options;
    const run = this.#run;
    const layers = new Map<number, LayerStep>();
    let finished: Finished | null = null;
    run.begin();
    // As many layers at a time as fit; the forwards are repeated for the others.
    for (let from: number | null = 0; from !== null;) {
      using captured = new Captured();
      const begin: number = from;
      let bytes = 0, next: number | null = null;
      progress_callback?.({ step, steps, side: "a" });
      using first = await run.forward(run.a, (trace) => {
        if (trace.layer_index < begin || next !== null) return;
        bytes += captureBytes(trace);
        if (bytes > capture_bytes && captured.size > 0) next = trace.layer_index;
        else captured.set(trace.layer_index, capture(trace));
      });
      progress_callback?.({ step, steps, side: "b" });
      using second = await run.forward(run.b, async (trace) => {
        if (trace.layer_index < begin || (next !== null && trace.layer_index >= next)) return;
        using before = captured.take(trace);
        layers.set(trace.layer_index, await this.#layer(before.trace, trace));
      });
      if (captured.size > 0) throw notTheSame("the second has fewer attention layers");
      if (next === null) finished = await run.finish(first, second);
      else run.repeat();
      from = next;
    }
    const { position, length } = run;
    this.#steps.push({ position, length, ...finished! });
    for (const [index, layer] of layers) this.#note(index, layer);
    this.#divergence = this.#first(step, layers);
    run.advance(finished!.greedy?.a ?? null);
    return this.#divergence !== null;
  }

  /** What was found. */
  result(): AttentionBisection {
    const { tolerance, run_tolerance } = this.#options;
    return {
      a: this.#run.a.described,
      b: this.#run.b.described,
      divergence: this.#divergence,
      tolerance: this.#tolerance,
      run_tolerance: this.#run_tolerance,
      scaled: { tolerance: tolerance === undefined, run_tolerance: run_tolerance === undefined },
      steps: this.#steps,
      layers: [...this.#layers.entries()].sort(([i], [j]) => i - j).map(([, layer]) => layer),
      tokens: this.#run.tokens,
    };
  }

  async #layer(a: AttentionTrace, b: AttentionTrace): Promise<LayerStep> {
    const { shape } = a.attn_output;
    if (`${shape}` !== `${b.attn_output.shape}` || `${a.key.shape}` !== `${b.key.shape}`) {
      throw notTheSame(
        `attn_output of ${a.layer} is [${shape}] with keys [${a.key.shape}], and [${b.attn_output.shape}] with ` +
          `keys [${b.key.shape}]`,
      );
    }
    const own = await a.attn_output.data() as Float32Array;
    const same = this.#run.a.model === this.#run.b.model;
    const outputs = { a: own, shape, q_offset: a.q_offset, counts: this.#run.counts(a) };
    const magnitude = await magnitudeOf(a);
    const { tolerance, run_tolerance } = this.#options;
    const isolated = compareOutputs({
      ...outputs,
      b: await attendOver(b, a, same),
      tolerance: scaled(this.#tolerance, tolerance === undefined ? magnitude : 1),
    });
    const in_run = compareOutputs({
      ...outputs,
      b: await b.attn_output.data() as Float32Array,
      tolerance: scaled(this.#run_tolerance, run_tolerance === undefined ? magnitude : 1),
    });
    this.#options.signal?.throwIfAborted();
    const origin = originOf(isolated, in_run);
    const place = (origin === "attention" ? isolated : in_run).first;
    const divergence = origin === null || place === null
      ? null
      : { origin, mask_a: maskAt(a, place), mask_b: maskAt(b, place) };
    return { trace: a, isolated, in_run, divergence };
  }

  /** Adds a layer of one step to the profile over all steps. */
  #note(index: number, { trace, isolated, in_run }: LayerStep): void {
    const known = this.#layers.get(index);
    const by_position = known?.by_position ?? [];
    isolated.by_query.forEach((ratio, q) => {
      by_position[trace.q_offset + q] = Math.max(by_position[trace.q_offset + q] ?? 0, ratio);
    });
    this.#layers.set(index, {
      layer: trace.layer,
      isolated: larger(known?.isolated, isolated),
      in_run: larger(known?.in_run, in_run),
      by_position,
    });
  }

  /** The first place of a step: by token, then by layer; in an encoder, where tokens see later ones, by layer. */
  #first(step: number, layers: ReadonlyMap<number, LayerStep>): AttentionDivergence | null {
    let best: AttentionDivergence | null = null;
    for (const [layer_index, found] of layers) {
      if (found.divergence === null) continue;
      const { isolated, in_run, trace } = found;
      const { first, heads } = found.divergence.origin === "attention" ? isolated : in_run;
      const { batch, position, head } = first!;
      const { origin } = found.divergence;
      // Layers come in order. What attention did wrong comes before what was handed on, also to earlier tokens: a
      // kernel that multiplies a hidden key's NaN by 0 does that.
      const later = best !== null &&
        (origin === best.origin
          ? this.#run.layersFirst(trace) || position >= best.position
          : best.origin === "attention");
      if (later) continue;
      best = {
        ...found.divergence,
        step,
        batch,
        position,
        token_id: this.#run.isText(trace) ? this.#run.tokens[batch]![position]! : null,
        layer: trace.layer,
        layer_index,
        head,
        heads,
        isolated: summary(isolated),
        in_run: summary(in_run),
      };
    }
    return best;
  }
}

/** Calls of the first side that wait for the second's. What nobody takes is disposed. */
class Captured implements Disposable {
  readonly #calls = new Map<number, CapturedCall>();

  get size(): number {
    return this.#calls.size;
  }

  set(index: number, call: CapturedCall): void {
    this.#calls.set(index, call);
  }

  take({ layer_index, layer }: AttentionTrace): CapturedCall {
    const call = this.#calls.get(layer_index);
    if (call === undefined) throw notTheSame(`the first has no attention layer ${layer}`);
    this.#calls.delete(layer_index);
    return call;
  }

  [Symbol.dispose](): void {
    for (const call of this.#calls.values()) call[Symbol.dispose]();
  }
}

function originOf(
  isolated: OutputDifference,
  in_run: OutputDifference,
): AttentionDivergence["origin"] | null {
  return isolated.first !== null ? "attention" : in_run.first !== null ? "inherited" : null;
}

function notTheSame(why: string): InvalidArgument {
  return new InvalidArgument(`Cannot compare two models that are not the same: ${why}`);
}

function sum(
  table: Readonly<Record<DeviceName, Tolerance>>,
  [a, b]: readonly [DeviceName, DeviceName],
): Tolerance {
  return { atol: table[a].atol + table[b].atol, rtol: table[a].rtol + table[b].rtol };
}

function scaled({ atol, rtol }: Tolerance, by: number): Tolerance {
  return { atol: atol * by, rtol };
}

function summary({ max_abs, relative, rms, ratio, worst }: OutputDifference): DifferenceSummary {
  return { max_abs, relative, rms, ratio, worst };
}

/** The larger of what is known and what one step adds. */
function larger(known: DifferenceSummary | undefined, added: OutputDifference): DifferenceSummary {
  if (known === undefined) return summary(added);
  const [more, less] = added.ratio > known.ratio ? [added, known] : [known, added];
  return {
    ...summary({ ...added, ...more }),
    max_abs: Math.max(more.max_abs, less.max_abs),
    relative: Math.max(more.relative, less.relative),
    rms: Math.max(more.rms, less.rms),
  };
}
