/**
 * What tests of whole models share: tests that count what they leave behind, and small random checkpoints.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type DeviceName, type DType, liveBuffers, PretrainedConfig, Tensor } from "../../mod.ts";
import { llamaConfig } from "../../src/models/llama_config.ts";
import { convertTo, present } from "../../src/dtype.ts";
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { type TestDevice, testDevices } from "../support/devices.ts";
import { goldenPath } from "../support/golden.ts";
import { seeded } from "../support/random.ts";

/** A Llama of 2 layers with a vocabulary of 64, whose outputs are recorded. */
export const LLAMA = goldenPath("models/llama");

/** A Llama of 6 layers that was trained, with a tokenizer. */
export const DEMO = decodeURIComponent(new URL("./demo", import.meta.url).pathname);

/** The devices library tests run on. */
export const DEVICES: readonly TestDevice[] = await testDevices();

/** Registers a test that must leave no tensor alive. */
export function liveTest(name: string, fn: (t: Deno.TestContext) => Promise<void> | void): void {
  Deno.test(name, async (t) => {
    // 0 unless an earlier test of the file leaked, which then is not blamed on this one.
    const before = liveBuffers();
    await fn(t);
    assertEquals(liveBuffers(), before, "tensors are still alive at the end of the test");
  });
}

const skipped = new Map<string, number>();

/** Registers a {@linkcode liveTest} for every device; those without the device are ignored and counted. */
export function everywhere(
  name: string,
  fn: (device: DeviceName, t: Deno.TestContext) => Promise<void> | void,
): void {
  for (const { name: device, skip } of DEVICES) {
    if (skip === undefined) liveTest(`${device}: ${name}`, (t) => fn(device, t));
    else {
      skipped.set(skip, (skipped.get(skip) ?? 0) + 1);
      Deno.test({ name: `${device}: ${name}`, ignore: true, fn: () => {} });
    }
  }
}

/** Registers a {@linkcode liveTest} that needs a GPU, ignored and counted where there is none. */
export function withGpu(name: string, fn: () => Promise<void>): void {
  const gpu = DEVICES.find((d) => d.name === "webgpu")!;
  if (gpu.skip === undefined) liveTest(`webgpu: ${name}`, fn);
  else {
    skipped.set(gpu.skip, (skipped.get(gpu.skip) ?? 0) + 1);
    Deno.test({ name: `webgpu: ${name}`, ignore: true, fn: () => {} });
  }
}

/** Registers, as the last test of a file, the line that counts what was skipped and why. */
export function reportSkipped(): void {
  for (const [reason, count] of skipped) {
    const line = `${count} tests skipped because ${reason}`;
    Deno.test(`skips: ${line}`, () => console.log(line));
  }
}

/** Rows of token ids as a tensor. */
export function ids(rows: readonly (readonly number[])[]): Tensor {
  return Tensor.from(rows, { dtype: "int64" });
}

/** Rows of a tensor of token ids; disposes it. */
export async function rowsOf(tokens: Tensor): Promise<number[][]> {
  using owned = tokens;
  return await owned.tolist() as number[][];
}

/** Disposes everything a forward returned. */
export function disposeAll(output: object): void {
  for (const value of Object.values(output)) {
    for (const x of Array.isArray(value) ? value : [value]) {
      if (typeof x === "object" && x !== null && Symbol.dispose in x) (x as Disposable)[Symbol.dispose]();
    }
  }
}

/** A random Llama to write: fields of its config, and how its weights are stored. */
export interface TinyLlama {
  readonly config?: Readonly<Record<string, unknown>>;
  /** Type in the file; default float32. */
  readonly dtype?: DType;
  readonly seed?: string;
}

/** A written checkpoint: its folder, which is removed on disposal, its config and the values it stores. */
export interface TinyCheckpoint extends AsyncDisposable {
  readonly folder: string;
  readonly config: PretrainedConfig;
  readonly weights: ReadonlyMap<string, Float64Array<ArrayBuffer>>;
}

const TINY = {
  model_type: "llama",
  vocab_size: 48,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 64,
};

/** Names and shapes of the weights of a Llama. */
export function llamaShapes(config: PretrainedConfig): Map<string, readonly number[]> {
  const c = llamaConfig(config);
  const [e, f] = [c.hidden_size, c.intermediate_size];
  const [q, kv] = [c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim];
  const shapes = new Map<string, readonly number[]>([["model.embed_tokens.weight", [c.vocab_size, e]]]);
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const linear = (name: string, out: number, inner: number, bias: boolean) => {
      shapes.set(`model.layers.${i}.${name}.weight`, [out, inner]);
      if (bias) shapes.set(`model.layers.${i}.${name}.bias`, [out]);
    };
    shapes.set(`model.layers.${i}.input_layernorm.weight`, [e]);
    linear("self_attn.q_proj", q, e, c.attention_bias);
    linear("self_attn.k_proj", kv, e, c.attention_bias);
    linear("self_attn.v_proj", kv, e, c.attention_bias);
    linear("self_attn.o_proj", e, q, c.attention_bias);
    shapes.set(`model.layers.${i}.post_attention_layernorm.weight`, [e]);
    linear("mlp.gate_proj", f, e, c.mlp_bias);
    linear("mlp.up_proj", f, e, c.mlp_bias);
    linear("mlp.down_proj", e, f, c.mlp_bias);
  }
  shapes.set("model.norm.weight", [e]);
  if (!c.tie_word_embeddings) shapes.set("lm_head.weight", [c.vocab_size, e]);
  return shapes;
}

/** Writes a random Llama into a temporary folder. */
export async function writeTinyLlama(options: TinyLlama = {}): Promise<TinyCheckpoint> {
  const { dtype = "float32", seed = "tiny llama" } = options;
  const fields = { ...TINY, ...options.config };
  const config = new PretrainedConfig(fields);
  const random = seeded(seed);
  const weights = new Map<string, Float64Array<ArrayBuffer>>();
  const file: Record<string, { dtype: DType; shape: readonly number[]; data: ArrayBufferView }> = {};
  for (const [name, shape] of llamaShapes(config)) {
    const n = shape.reduce((a, b) => a * b, 1);
    // Norms lie around 1; projections keep the scale of what they are given.
    const values = name.endsWith("norm.weight")
      ? random.normal(n, 0.1).map((x) => 1 + x)
      : random.normal(n, shape.length === 1 ? 0.3 : shape[1]! ** -0.5);
    const data = convertTo(dtype, values);
    file[name] = { dtype, shape, data };
    weights.set(name, Float64Array.from(present(dtype, data) as Float32Array));
  }
  const folder = await Deno.makeTempDir({ prefix: "tiny_llama_" });
  await Deno.writeFile(`${folder}/model.safetensors`, writeSafetensors(file));
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(fields));
  return {
    folder,
    config,
    weights,
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}
