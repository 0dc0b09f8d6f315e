/**
 * The public names: what the contract promises is exported, what it does not have yet is listed here, and every
 * export says what it is.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { deno, ROOT } from "./publishing.ts";

/** What `deno doc --json` tells of a symbol, as far as it is read here. */
interface Symbol {
  readonly name: string;
  readonly declarations: readonly Declaration[];
}
interface Declaration {
  readonly kind: string;
  readonly jsDoc?: Documentation;
}
interface Documentation {
  readonly doc?: string;
  readonly tags?: readonly unknown[];
}
interface Module {
  readonly module_doc?: Documentation;
  readonly symbols: readonly Symbol[];
}

async function documented(entry: string): Promise<Module> {
  const { code, stdout, stderr } = await deno(["doc", "--json", entry], { cwd: ROOT });
  assert(code === 0, `deno doc failed:\n${stderr}`);
  const { nodes } = JSON.parse(stdout) as { nodes: Record<string, Module> };
  return Object.values(nodes)[0]!;
}

const modules = new Map<string, Module>();
for (const entry of ["mod.ts", "testing.ts", "src/cli/main.ts", "src/ops/mod.ts"]) {
  modules.set(entry, await documented(entry));
}
const exported = modules.get("mod.ts")!.symbols.map(({ name }) => name);
const operations = modules.get("src/ops/mod.ts")!.symbols.map(({ name }) => name);

const words = (text: string): string[] => text.trim().split(/\s+/);

/** Names the contract gives to `mod.ts`. */
const CONTRACT: readonly string[] = words(`
  Tensor DType DeviceName TypedArray NestedArray ops device liveBuffers configure support
  AttentionMask AttentionResult AttentionFunction AttentionModule AttentionKwargs
  AttentionInterface ALL_ATTENTION_FUNCTIONS AttentionMaskInterface ALL_MASK_ATTENTION_FUNCTIONS
  eager_attention_forward sdpa_attention_forward flash_attention_forward flex_attention_forward
  eager_paged_attention_forward sdpa_paged_attention_forward flash_paged_attention_forward
  attention SDPBackend sdpa_kernel
  MaskFunction MaskFormatter MaskArgs
  causal_mask_function bidirectional_mask_function
  sliding_window_overlay chunked_overlay bidirectional_window_overlay
  sliding_window_causal_mask_function sliding_window_bidirectional_mask_function chunked_causal_mask_function
  packed_sequence_mask_function padding_mask_function and_masks or_masks add_offsets_to_mask_function
  eager_mask sdpa_mask flash_attention_mask flex_attention_mask
  create_causal_mask create_sliding_window_causal_mask create_chunked_causal_mask
  create_bidirectional_mask create_bidirectional_sliding_window_mask create_masks_for_generate
  BlockMask create_block_mask find_packed_sequence_indices
  get_extended_attention_mask create_extended_attention_mask_for_decoder invert_attention_mask
  Cache DynamicCache StaticCache
  PretrainedConfig AutoConfig AutoTokenizer AutoProcessor
  AutoModel AutoModelForCausalLM AutoModelForImageTextToText PreTrainedModel TextStreamer
  is_kernel get_local_kernel has_kernel get_kernel load_and_register_attn_kernel register_kernel_hub
  InvalidArgument DeviceUnavailable OutOfMemory
`);

/** Names the contract gives to `ops`. */
const OPERATIONS: readonly string[] = words(`
  matmul add sub mul div neg exp log tanh sigmoid sqrt maximum where softmax sum max mean cast reshape permute
  transpose slice cat repeat_kv zeros full arange rms_norm embedding linear tidy
`);

/** What the contract has and this version does not, by the part that will bring it. A name that has come must go. */
const LATER: Readonly<Record<string, readonly string[]>> = {
  "kernel packages": words(
    "get_local_kernel has_kernel get_kernel load_and_register_attn_kernel register_kernel_hub",
  ),
  "image processors": ["AutoProcessor"],
};
const later = Object.values(LATER).flat();

Deno.test("exports: every name of the contract, but those listed as coming", () => {
  assertEquals(CONTRACT.filter((name) => !exported.includes(name) && !later.includes(name)), []);
});

Deno.test("exports: a name that has come is no longer listed as coming", () => {
  assertEquals(later.filter((name) => exported.includes(name)), []);
  assertEquals(later.filter((name) => !CONTRACT.includes(name)), []);
});

Deno.test("exports: every operation of the contract", () => {
  assertEquals(OPERATIONS.filter((name) => !operations.includes(name)), []);
});

Deno.test("exports: what the documentation lists and what a program sees are the same values", async () => {
  const types = ["interface", "typeAlias"];
  const values = modules.get("mod.ts")!.symbols
    .filter(({ declarations }) => declarations.some(({ kind }) => !types.includes(kind)))
    .map(({ name }) => name);
  const seen = Object.keys(await import("../../mod.ts"));
  assertEquals(seen.filter((name) => !values.includes(name)), []);
});

const isSaid = (doc: Documentation | undefined) =>
  (doc?.doc ?? "").trim() !== "" || (doc?.tags ?? []).length > 0;

Deno.test("exports: every name and every module says what it is", () => {
  const silent: string[] = [];
  for (const [entry, { module_doc, symbols }] of modules) {
    if (!isSaid(module_doc)) silent.push(entry);
    for (const { name, declarations } of symbols) {
      // A namespace is a module of its own in this list.
      const spoken = declarations.filter(({ kind }) => kind !== "namespace");
      if (spoken.length > 0 && !spoken.some(({ jsDoc }) => isSaid(jsDoc))) silent.push(`${entry}: ${name}`);
    }
  }
  assertEquals(silent, []);
});
