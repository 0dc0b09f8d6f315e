/**
 * What surrounds the decoders: a model without a head, one with a head for the next token, and the walk through the
 * layers.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Device } from "../devices/device.ts";
import type { AttentionContext } from "../layers/attention.ts";
import type { Block } from "../layers/block.ts";
import type { Embedding } from "../layers/embedding.ts";
import { Linear } from "../layers/linear.ts";
import type { Norm } from "../layers/norm.ts";
import type { Parameter, Parameters } from "../layers/parameter.ts";
import { div, mul, tanh } from "../ops/elementwise.ts";
import { slice } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { Call } from "./call.ts";
import { disposeOutput } from "./inputs.ts";
import type { AttentionLayer } from "./plans.ts";
import { type ForwardOutput, type ModelParts, PreTrainedModel } from "./pretrained.ts";

/** A stack of decoder layers between an embedding and a norm: one file an architecture. */
export interface Decoder extends Disposable {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly embed_tokens: Embedding;
  readonly blocks: readonly Block[];
  readonly head: HeadFields;
  /**
   * Builds the masks, and only then asks for the hidden states (B, N, E), which it disposes: what they wait for must not
   * let a swap come between plan and masks. The result's tensors belong to the caller.
   */
  forward(call: Call, begin: () => Tensor | Promise<Tensor>, device: Device): Promise<ForwardOutput>;
}

/** How an architecture's logits come about. */
export interface HeadFields {
  /** Whether the projection is the embedding. */
  readonly tied: boolean;
  /** `c·tanh(logit / c)`, or null. */
  readonly softcap: number | null;
}

/** Builds a decoder from a checked config. @throws {InvalidArgument | ModelFileError} */
export type DecoderClass = new (config: PretrainedConfig, parameters: Parameters) => Decoder;

/** The hidden states a forward begins with: the embeddings given, or those of the ids. */
export function embed(decoder: Decoder, { input_ids, inputs_embeds }: Call): Tensor {
  return input_ids === null
    ? inputs_embeds!.view(inputs_embeds!.shape, inputs_embeds!.strides)
    : decoder.embed_tokens.forward(input_ids);
}

/**
 * Walks through the layers, collecting what the call asks for. `hidden` (B, N, E) is disposed; `norm`, where there is
 * one, makes the last hidden state.
 */
export async function runBlocks(
  call: Call,
  hidden: Tensor,
  blocks: readonly Block[],
  contextOf: (index: number) => AttentionContext,
  norm: Norm | null,
): Promise<ForwardOutput> {
  const hidden_states: Tensor[] = [];
  const attentions: Tensor[] = [];
  const again = (t: Tensor) => t.view(t.shape, t.strides);
  let current = hidden;
  try {
    for (const [i, block] of blocks.entries()) {
      if (call.output_hidden_states) hidden_states.push(again(current));
      const [next, weights] = await block.forward(current, contextOf(i));
      current[Symbol.dispose]();
      current = next;
      if (weights !== null && call.output_attentions) attentions.push(weights);
      else weights?.[Symbol.dispose]();
    }
    const last_hidden_state = norm === null ? again(current) : norm.forward(current);
    if (call.output_hidden_states) hidden_states.push(again(last_hidden_state));
    return {
      last_hidden_state,
      ...(call.output_attentions ? { attentions } : {}),
      ...(call.output_hidden_states ? { hidden_states } : {}),
    };
  } catch (error) {
    for (const t of [...hidden_states, ...attentions]) t[Symbol.dispose]();
    throw error;
  } finally {
    current[Symbol.dispose]();
  }
}

/** The names of a stack's attention layers, which all belong to `config`. */
export function layerNames(
  blocks: readonly Block[],
  config: PretrainedConfig,
  prefix = "",
): AttentionLayer[] {
  return blocks.map((_, i) => ({ layer: `${prefix}layers.${i}.self_attn`, config }));
}

/** A decoder without a head: hidden states out. */
export class DecoderModel extends PreTrainedModel {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly attention_layers: readonly AttentionLayer[];
  protected readonly decoder: Decoder;

  /** A model around a decoder made from the same parts. */
  constructor(parts: ModelParts, decoder: Decoder) {
    super(parts);
    this.decoder = decoder;
    this.vocab_size = decoder.vocab_size;
    this.hidden_size = decoder.hidden_size;
    this.attention_layers = layerNames(decoder.blocks, parts.config);
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    return await this.decoder.forward(call, () => embed(this.decoder, call), this.deviceHandle);
  }

  protected override releaseState(): void {
    this.decoder[Symbol.dispose]();
  }
}

/** A decoder with a language-modelling head. */
export class DecoderForCausalLM extends DecoderModel {
  readonly #head: LanguageHead;

  /**
   * A model around a decoder made from the same parts.
   *
   * @throws {ModelFileError} for a missing or misshapen head
   */
  constructor(parts: ModelParts, decoder: Decoder) {
    super(parts, decoder);
    this.#head = LanguageHead.of(decoder, parts.parameters, "lm_head.weight");
  }

  /** A head predicts tokens. */
  override can_generate(): boolean {
    return true;
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    return this.#head.forward(await super.compute(call), call);
  }
}

/** Hidden states → logits. */
export class LanguageHead {
  readonly #projection: Linear;

  private constructor(weight: Parameter, readonly softcap: number | null) {
    this.#projection = new Linear(weight);
  }

  /**
   * The head of a decoder: its embedding where tied, else the weight (V, E) called `name` in the checkpoint.
   *
   * @throws {ModelFileError} for a missing or misshapen weight
   */
  static of(decoder: Decoder, parameters: Parameters, name: string): LanguageHead {
    const { tied, softcap } = decoder.head;
    const weight = tied
      ? decoder.embed_tokens.weight
      : parameters.takeAbsolute(name, [decoder.vocab_size, decoder.hidden_size]);
    // It keeps its type when a model is quantised: logits are compared with each other at a grain finer than 8 bits.
    weight.use = "other";
    return new LanguageHead(weight, softcap);
  }

  /** The output of a forward with logits (B, kept, V) in place of its last hidden state, which is disposed. */
  forward({ last_hidden_state, ...rest }: ForwardOutput, call: Call): ForwardOutput {
    using hidden = last_hidden_state!;
    try {
      const logits = tidy(() => {
        const from = call.logits_to_keep === 0 ? 0 : Math.max(0, call.length - call.logits_to_keep);
        const raw = this.#projection.forward(slice(hidden, 1, from));
        return this.softcap === null ? raw : mul(tanh(div(raw, this.softcap)), this.softcap);
      });
      return { logits, ...rest };
    } catch (error) {
      disposeOutput(rest);
      throw error;
    }
  }
}
