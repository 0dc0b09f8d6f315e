/**
 * Two sides run in step: the same tokens through both, each with its own cache.
 *
 * @module
 */
import type { Cache, CacheSnapshot } from "../cache/cache.ts";
import { DynamicCache } from "../cache/dynamic.ts";
import type { AttnImplementation, PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { PromptMask, rowsOf } from "../generation/prompt.ts";
import { disposeOutput, type ForwardInputs, type ForwardOutput } from "../models/inputs.ts";
import { applyImplementation, DEFAULT_IMPLEMENTATION } from "../models/plans.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import { Tensor } from "../tensor.ts";
import type {
  BisectInputs,
  BisectOptions,
  BisectSide,
  ComparedSide,
  StepComparison,
} from "./bisect_types.ts";
import { type AttentionTrace, trace_attention } from "./trace.ts";

/** What both sides put out after a forward. */
export type Finished = Pick<StepComparison, "output" | "greedy">;

/** A model with the implementation it is compared with, and its cache. */
export class Side implements Disposable {
  readonly model: PreTrainedModel;
  readonly described: ComparedSide;
  readonly cache: Cache | null;
  readonly #choice: AttnImplementation;

  /**
   * Checks the choice; nothing is switched yet.
   *
   * @throws {InvalidArgument} for an unknown name or sub-config
   */
  constructor(name: string, { model, attn_implementation }: BisectSide) {
    if (typeof model?.forward !== "function") {
      throw new InvalidArgument(`Cannot compare side ${name}: expected { model, attn_implementation? }`);
    }
    const config = model.config.clone();
    if (attn_implementation !== undefined) applyImplementation(config, attn_implementation);
    this.model = model;
    this.#choice = choiceOf(config);
    this.described = { implementation: inWords(config), device: model.device };
    this.cache = model.is_encoder
      ? null
      : new DynamicCache({ config: model.text_config, kv_dtype: model.kv_dtype });
  }

  /** Runs `work` while the model uses this side's choice. */
  async chosen<T>(work: () => Promise<T>): Promise<T> {
    const { config } = this.model;
    const before = choiceOf(config);
    applyImplementation(config, this.#choice);
    try {
      return await work();
    } finally {
      config._attn_implementation = before;
    }
  }

  [Symbol.dispose](): void {
    this.cache?.[Symbol.dispose]();
  }
}

/** The choice of every part. */
function choiceOf(part: PretrainedConfig): AttnImplementation {
  const parts = Object.entries(part.sub_configs).map(([key, sub]) => [key, choiceOf(sub)] as const);
  return { "": part._attn_implementation, ...Object.fromEntries(parts) };
}

function inWords(config: PretrainedConfig): string {
  const own = config._attn_implementation ?? DEFAULT_IMPLEMENTATION;
  const others = Object.entries(config.sub_configs)
    .filter(([, sub]) => inWords(sub) !== own)
    .map(([key, sub]) => `, ${key}=${inWords(sub)}`);
  return own + others.join("");
}

/** Output of a forward, disposed with it. */
export interface OwnedOutput extends Disposable {
  readonly output: ForwardOutput;
}

/** The forwards of both sides. */
export class PairRun implements Disposable {
  readonly a: Side;
  readonly b: Side;
  /** Token ids by row, growing. */
  readonly tokens: number[][];
  readonly #inputs: BisectInputs;
  readonly #mask: PromptMask | null;
  readonly #signal: AbortSignal | undefined;
  #done = 0;
  #before: readonly (CacheSnapshot | null)[] = [];

  /** The sides belong to the run. */
  constructor(a: Side, b: Side, inputs: BisectInputs, signal: AbortSignal | undefined) {
    this.a = a;
    this.b = b;
    this.#inputs = inputs;
    this.tokens = rowsOf(inputs.input_ids);
    this.#mask = inputs.attention_mask === undefined ? null : new PromptMask(rowsOf(inputs.attention_mask));
    this.#signal = signal;
  }

  /** Position of the first token of this step. */
  get position(): number {
    return this.#done;
  }

  /** Tokens of this step. */
  get length(): number {
    return this.tokens[0]!.length - this.#done;
  }

  /** Whether a layer reads tokens of the text. */
  isText({ module }: AttentionTrace): boolean {
    return [this.a, this.b].some(({ model }) => model.text_config === module.config);
  }

  /** Whether what a layer computes for a token depends on later ones, so that layers come before tokens. */
  layersFirst(trace: AttentionTrace): boolean {
    return this.a.model.is_encoder || !this.isText(trace);
  }

  /** Which rows of a layer's output count. */
  counts(trace: AttentionTrace): (batch: number, position: number) => boolean {
    const mask = this.isText(trace) ? this.#mask : null;
    return (batch, position) => (mask?.rows[batch]?.[position] ?? 1) === 1;
  }

  /** One forward of this step. */
  async forward(
    side: Side,
    visit: (trace: AttentionTrace) => void | Promise<void>,
  ): Promise<OwnedOutput> {
    using made = new DisposableStack();
    const rows = (values: readonly (readonly number[])[]) =>
      made.use(Tensor.from(values, { dtype: "int32", shape: [values.length, values[0]!.length] }));
    const first = this.#done === 0;
    const prompts = this.tokens.map((_, i) => i);
    const masking = this.#mask?.tensors(prompts, this.#done, this.#done + this.length) ?? null;
    if (masking !== null) made.use(masking);
    const { pixel_values, token_type_ids } = this.#inputs;
    const inputs: ForwardInputs = {
      input_ids: rows(this.tokens.map((row) => row.slice(this.#done))),
      ...(side.cache === null ? {} : { past_key_values: side.cache }),
      ...(masking === null ? {} : { attention_mask: masking.attention_mask }),
      // An encoder counts positions by itself.
      ...(masking === null || side.cache === null ? {} : { position_ids: masking.position_ids }),
      ...(side.model.can_generate() ? { logits_to_keep: 1 } : {}),
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      ...(first && pixel_values !== undefined ? { pixel_values } : {}),
      ...(first && token_type_ids !== undefined ? { token_type_ids } : {}),
    };
    const output = await side.chosen(() => trace_attention(side.model, inputs, visit));
    return { output, [Symbol.dispose]: () => disposeOutput(output) };
  }

  /** Begins a step, whose forwards {@linkcode PairRun.repeat} can forget. */
  begin(): void {
    this.#forget();
    this.#before = [this.a, this.b].map(({ cache }) => cache?.snapshot() ?? null);
  }

  /** Forgets the forwards of this step, so that they can be run again. */
  repeat(): void {
    for (const before of this.#before) before?.restore();
  }

  #forget(): void {
    for (const before of this.#before) before?.[Symbol.dispose]();
    this.#before = [];
  }

  /** What the two put out. */
  async finish(a: OwnedOutput, b: OwnedOutput): Promise<Finished> {
    const read = async ({ output }: OwnedOutput) => {
      const t = output.logits ?? output.last_hidden_state!;
      return { values: await t.data() as Float32Array, shape: t.shape, logits: output.logits !== undefined };
    };
    const [x, y] = [await read(a), await read(b)];
    const [batch, rows, width] = x.shape as [number, number, number];
    let output = 0;
    x.values.forEach((value, i) => {
      const position = this.#done + this.length - rows + Math.floor(i / width) % rows;
      const row = this.#mask?.rows[Math.floor(i / width / rows)];
      if ((row?.[position] ?? 1) !== 1 || Object.is(value, y.values[i])) return;
      const error = Math.abs(value - y.values[i]!);
      output = Math.max(output, Number.isNaN(error) ? Infinity : error);
    });
    const best = (values: Float32Array) =>
      Array.from(
        { length: batch },
        (_, i) => argmax(values.subarray(i * rows * width + (rows - 1) * width, (i + 1) * rows * width)),
      );
    return { output, greedy: x.logits ? { a: best(x.values), b: best(y.values) } : null };
  }

  /** Goes on to the next step, with one token more a row. */
  advance(next: readonly number[] | null): void {
    this.#done = this.tokens[0]!.length;
    next?.forEach((id, row) => this.tokens[row]!.push(id));
  }

  [Symbol.dispose](): void {
    this.#forget();
    for (const side of [this.a, this.b]) side[Symbol.dispose]();
  }
}

function argmax(values: Float32Array): number {
  return values.reduce((best, x, i) => x > values[best]! ? i : best, 0);
}

/**
 * Checks inputs and options. Returns the number of new tokens.
 *
 * @throws {InvalidArgument}
 */
export function checkInputs(
  model: PreTrainedModel,
  { input_ids, attention_mask }: BisectInputs,
  options: BisectOptions,
  usual: number,
): number {
  const matrix = (t: unknown): t is Tensor => t instanceof Tensor && t.shape.length === 2 && t.size > 0;
  if (!matrix(input_ids)) {
    throw new InvalidArgument("Cannot compare without input_ids: expected an integer tensor (B, N)");
  }
  if (
    attention_mask !== undefined &&
    (!matrix(attention_mask) || `${attention_mask.shape}` !== `${input_ids.shape}`)
  ) {
    throw new InvalidArgument(
      `Cannot compare with this attention_mask: expected a tensor (B, N) = [${input_ids.shape}], 1 for real tokens`,
    );
  }
  const { max_new_tokens = model.can_generate() ? usual : 0, tolerance, run_tolerance } = options;
  if (!Number.isInteger(max_new_tokens) || max_new_tokens < 0) {
    throw new InvalidArgument(`Cannot compare max_new_tokens ${max_new_tokens}: expected an integer ≥ 0`);
  }
  if (max_new_tokens > 0 && !model.can_generate()) {
    throw new InvalidArgument(
      "Cannot compare new tokens of a model without a head: expected max_new_tokens 0",
    );
  }
  for (const [name, t] of [["tolerance", tolerance], ["run_tolerance", run_tolerance]] as const) {
    if (t !== undefined && !(t.atol >= 0 && t.rtol >= 0)) {
      throw new InvalidArgument(
        `Cannot compare with ${name} ${JSON.stringify(t)}: expected { atol, rtol } ≥ 0`,
      );
    }
  }
  return max_new_tokens;
}
