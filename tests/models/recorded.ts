/**
 * Runs the recorded forwards and generations of one architecture under every implementation that means the same.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  AttentionRefused,
  type AttnImplementation,
  type AutoClass,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  type Cache,
  type DeviceName,
  DynamicCache,
  type PreTrainedModel,
  StaticCache,
  Tensor,
} from "../../mod.ts";
import { faultOf, type Outcome, type Runner } from "../decisions/outcome.ts";
import { decidedFor } from "../support/decided.ts";
import {
  type GoldenCase,
  goldenCases,
  goldenPath,
  goldenTensor,
  type GoldenValue,
} from "../support/golden.ts";
import { assertClose, type Tolerance, toleranceOf } from "../support/tolerance.ts";
import { disposeAll, everywhere, ids, rowsOf } from "./support.ts";

type Fields = Readonly<Record<string, GoldenValue>>;

/** Recordings are of one implementation, but the others compute the same. */
const NAMES = ["eager", "sdpa", "flash_attention_2", "flex_attention"];

/** What a recording allows; GPU arithmetic gets what its own row of the table allows, if that is more. */
function allowed(recorded: GoldenCase, device: DeviceName): Tolerance {
  const table = toleranceOf("logits", device);
  return {
    atol: Math.max(recorded.atol ?? 0, table.atol),
    rtol: Math.max(recorded.rtol ?? 0, table.rtol),
  };
}

/** Numbers of the rows a case compares: all, or those of real tokens. */
function comparable(recorded: GoldenCase, values: ArrayLike<number>, width: number): Float64Array {
  const all = Float64Array.from(values);
  if (recorded.compare_rows !== "attention_mask") return all;
  const real = (recorded.params.attention_mask as number[][]).flat();
  return all.filter((_, at) => real[Math.floor(at / width)] === 1);
}

/**
 * The implementations a case is run under: the recorded one, and with the first recording of these inputs those that have
 * none of their own and a form for the mask.
 */
function namesFor(c: GoldenCase): AttnImplementation[] {
  const recorded = c.params.attn_implementation as AttnImplementation;
  if (typeof recorded !== "string") return [recorded];
  const twin = (name: string) => goldenCases("model").some((o) => o.id === c.id.replace(/[^/]+$/, name));
  const first = !c.id.endsWith(`/${recorded}`) || NAMES.find(twin) === recorded;
  const finished = c.op === "forward" && isFinished(c.params.attention_mask);
  const others = NAMES.filter((name) =>
    name !== recorded && first && !(c.id.endsWith(`/${recorded}`) && twin(name)) &&
    !(finished && name.startsWith("fl"))
  );
  return [recorded, ...others];
}

function isFinished(mask: GoldenValue | undefined): boolean {
  return Array.isArray(mask) && Array.isArray((mask as number[][][])[0]![0]);
}

/** The tensors among a case's inputs, which the caller disposes. */
function inputsOf({ params }: GoldenCase): Record<string, Tensor> {
  const inputs: Record<string, Tensor> = { input_ids: ids(params.input_ids as number[][]) };
  if (params.attention_mask !== undefined) {
    const dtype = isFinished(params.attention_mask) ? "bool" : "int64";
    inputs["attention_mask"] = Tensor.from(params.attention_mask as number[][], { dtype });
  }
  if (params.position_ids !== undefined) inputs["position_ids"] = ids(params.position_ids as number[][]);
  if (params.pixel_values !== undefined) {
    const { data, shape } = goldenTensor(params.pixel_values);
    inputs["pixel_values"] = Tensor.from(data, { dtype: "float32", shape });
  }
  return inputs;
}

/** Loaders of architectures that are not for text alone. */
const LOADERS: Readonly<Record<string, AutoClass>> = {
  bert: AutoModel,
  llava: AutoModelForImageTextToText,
};

/** The loader of a recorded architecture. */
export function loaderOf(arch: unknown): AutoClass {
  return LOADERS[String(arch)] ?? AutoModelForCausalLM;
}

async function load(c: GoldenCase, attn_implementation: AttnImplementation, device: DeviceName) {
  const path = goldenPath(c.params.model as string);
  return await loaderOf(c.params.arch).from_pretrained(path, { attn_implementation, device });
}

/** What tests of one architecture need. */
export interface RecordedArchitecture {
  readonly arch: string;
  /** Implementations that must refuse these inputs, and why: the error says it. */
  readonly refuses?: readonly string[];
}

const OPERATIONS: Readonly<
  Record<string, (c: GoldenCase, model: PreTrainedModel, device: DeviceName) => Promise<Outcome>>
> = { forward: runForward, generate: runGenerate, cache_continuation: runContinuation };

/** Runs a case under the implementation it was recorded with. */
export const runModel: Runner = async (c, device) => {
  await using model = await load(c, c.params.attn_implementation as AttnImplementation, device);
  return [await OPERATIONS[c.op]!(c, model, device)];
};

/** Registers a test for every recording of an architecture. */
export function recordedTests({ arch, refuses = [] }: RecordedArchitecture): void {
  for (const c of goldenCases("model").filter((c) => c.params.arch === arch)) {
    const run = OPERATIONS[c.op]!;
    for (const name of namesFor(c)) {
      const label = `${c.id} as ${typeof name === "string" ? name : JSON.stringify(name)}`;
      everywhere(label, async (device) => {
        await using model = await load(c, name, device);
        if (refuses.includes(String(name))) {
          await assertRejects(() => run(c, model, device), AttentionRefused, String(name));
          return;
        }
        const outcome = await run(c, model, device);
        assertEquals(outcome.difference(decidedFor(c.id)?.value ?? outcome.recorded), null);
      });
    }
  }
}

async function runForward(c: GoldenCase, model: PreTrainedModel, device: DeviceName): Promise<Outcome> {
  const inputs = inputsOf(c), { params } = c;
  const recorded = c.expect as Fields;
  let output;
  try {
    output = await model.forward({
      ...inputs,
      ...(typeof params.use_cache === "boolean" ? { use_cache: params.use_cache } : {}),
      ...(typeof params.is_causal === "boolean" ? { is_causal: params.is_causal } : {}),
      ...(params.output_attentions === true ? { output_attentions: true } : {}),
    });
  } finally {
    disposeAll(inputs);
  }
  const result = output[recorded.output_kind as "logits" | "last_hidden_state"]!;
  const { shape } = result, values = await result.data() as Float32Array;
  assertEquals(values.findIndex((x) => !Number.isFinite(x)), -1, "every value is finite, padded rows too");
  const weights: { shape: readonly number[]; data: Float32Array }[] = [];
  for (const t of output.attentions ?? []) {
    weights.push({ shape: t.shape, data: await t.data() as Float32Array });
  }
  disposeAll(output);
  const within = allowed(c, device);
  return {
    recorded: c.expect,
    difference: (expected) =>
      faultOf(() => {
        const tensor = goldenTensor((expected as Fields).output), width = tensor.shape[2]!;
        assertEquals(shape, tensor.shape);
        assertClose(comparable(c, values, width), comparable(c, tensor.data, width), within, "output");
        const attentions = (recorded.attentions ?? []) as GoldenValue[];
        assertEquals(weights.length, attentions.length);
        for (const [i, ref] of attentions.entries()) {
          const expected = goldenTensor(ref);
          assertEquals(weights[i]!.shape, expected.shape);
          assertClose(weights[i]!.data, expected.data, within, `attention weights of layer ${i}`);
        }
      }),
  };
}

async function runGenerate(c: GoldenCase, model: PreTrainedModel): Promise<Outcome> {
  const inputs = inputsOf(c), prompt = c.params.input_ids as number[][];
  const max_new_tokens = c.params.max_new_tokens as number;
  using past_key_values = cacheFor(c, model, prompt[0]!.length + max_new_tokens);
  let tokens: number[][];
  try {
    tokens = await rowsOf(
      await model.generate({
        ...inputs as { input_ids: Tensor },
        max_new_tokens,
        ...(past_key_values === null ? {} : { past_key_values }),
      }),
    );
  } finally {
    disposeAll(inputs);
  }
  return {
    recorded: c.expect,
    difference: (expected) =>
      faultOf(() => {
        const rows = (expected as Fields).tokens as number[][];
        assertEquals(tokens, prompt.map((row, i) => [...row, ...rows[i]!]));
      }),
  };
}

function cacheFor({ params }: GoldenCase, model: PreTrainedModel, max_cache_len: number): Cache | null {
  return params.cache === "static" ? new StaticCache({ config: model.config, max_cache_len }) : null;
}

async function runContinuation(c: GoldenCase, model: PreTrainedModel, device: DeviceName): Promise<Outcome> {
  using past_key_values = new DynamicCache({ config: model.config });
  const rows = c.params.input_ids as number[][], at = c.params.split_at as number;
  const found: Float32Array[] = [];
  for (const [from, to] of [[0, at], [at, rows[0]!.length]] as const) {
    using input_ids = ids(rows.map((r) => r.slice(from, to)));
    const { logits } = await model.forward({ input_ids, past_key_values });
    using owned = logits!;
    found.push(await owned.data() as Float32Array);
  }
  assertEquals(past_key_values.get_seq_length(), rows[0]!.length);
  return {
    recorded: c.expect,
    difference: (expected) =>
      faultOf(() => {
        const { first, second } = expected as Fields;
        for (const [i, part] of [first, second].entries()) {
          assertClose(found[i]!, goldenTensor(part).data, allowed(c, device), "logits");
        }
      }),
  };
}
