/**
 * The shape of the tree: one stem in three languages, short files, no way around the type checker.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { filesBelow, stemOf, textOf, withoutComments } from "./sources.ts";

/** The attention kernels: the values of `AttentionAlgorithm` in `src/devices/device.ts`. */
function attentionStems(): string[] {
  const union = /type AttentionAlgorithm =([^;]+);/.exec(textOf("src/devices/device.ts"))?.[1] ?? "";
  return [...union.matchAll(/"(\w+)"/g)].map((m) => m[1]!);
}

const LANGUAGES = [
  { folder: "src/attention", extension: ".ts" },
  { folder: "wasm/kernels/src", extension: ".rs" },
  { folder: "kernels", extension: ".wgsl" },
] as const;

Deno.test("one stem, three languages: every attention kernel has its TypeScript, Rust and WGSL file", () => {
  const stems = attentionStems();
  assertEquals(stems.length > 0, true, "no algorithms were found in src/devices/device.ts");
  const missing = stems.flatMap((stem) =>
    LANGUAGES.map(({ folder, extension }) => `${folder}/${stem}${extension}`)
  )
    .filter((path) => !filesBelow(path.slice(0, path.lastIndexOf("/"))).includes(path));
  assertEquals(missing, []);
});

/** Kernels that Rust exports: `flash` for `attention_flash`. */
function rustKernels(): string[] {
  const exported = /extern "C" fn (\w+)\(\s*\w+: \*const \w+,\s*\w+: \*mut u8,\s*begin: u32/g;
  return filesBelow("wasm/kernels/src", [".rs"])
    .flatMap((path) => [...textOf(path).matchAll(exported)].map((m) => m[1]!.replace(/^attention_/, "")));
}

/** Kernels that exist on one device only, and why. A row that is no longer true fails. */
const ONE_DEVICE_ONLY: Readonly<Record<string, string>> = {
  decode:
    "on the CPU flash over a few query rows is a kernel of its own; on the GPU flash_few.wgsl or a short tile of flash.wgsl",
  flash_3: "overlaps stages; on the GPU every version is a variant of flash.wgsl",
  flash_3_int8: "multiplies quantised queries and keys; the GPU has no such path",
  flash_4: "scales earlier output rarely; on the GPU every version is a variant of flash.wgsl",
  flash_few: "on the GPU few rows over many keys, each read by several invocations; in Rust that is decode",
  flash_merge: "joins the key ranges of a short query tile, which the GPU sums in different workgroups",
  pack_rows: "the CPU packs the rows of a linear layer once; the GPU stages its tiles in workgroup memory",
  rotary_table: "the GPU's table is computed on the CPU, since WGSL's cos and sin are too coarse",
  blocks: "hides scores of eager before their softmax; in Rust that is a step inside eager",
  linear_quantized_few:
    "few rows share out their sums on the GPU; in Rust they are a case of linear_quantized",
  quantize_weight: "weights are made once, and on the CPU the same bits come out everywhere",
  pack_weight: "as quantize_weight: from files into memory",
  unpack_weight: "as quantize_weight: from memory into files",
  linear_matrix: "matrix units are the GPU's",
  patch: "GPU copies move whole words, and a tensor of halves may start in the middle of one",
};

/** What a kernel is called in Rust where its name is a keyword there. */
const RUST_NAMES: Readonly<Record<string, string>> = { where: "choose" };

Deno.test("kernels: Rust and WGSL have the same ones, but for the rows of ONE_DEVICE_ONLY", () => {
  const rust = new Set(rustKernels());
  const wgsl = filesBelow("kernels", [".wgsl"]).map(stemOf);
  const inRust = (stem: string) => rust.has(RUST_NAMES[stem] ?? stem);
  const inWgsl = new Set(wgsl.map((stem) => RUST_NAMES[stem] ?? stem));
  const orphans = [...wgsl.filter((stem) => !inRust(stem)), ...[...rust].filter((name) => !inWgsl.has(name))];
  assertEquals(orphans.sort(), Object.keys(ONE_DEVICE_ONLY).sort());
});

/** Whether the first comment of a file, before any code, holds a text. */
function firstCommentHas(code: string, text: string): boolean {
  const comment = /^\s*(?:\/\*[\s\S]*?\*\/|(?:\/\/.*\n\s*)+)/.exec(code)?.[0] ?? "";
  return comment.includes(text);
}

Deno.test("files over 300 lines say in their first comment why (Length: …)", () => {
  const sources = [
    ...filesBelow("src", [".ts"]),
    ...filesBelow("wasm/kernels/src", [".rs"]),
    ...filesBelow("wasm/host/src", [".rs"]),
    ...filesBelow("kernels", [".wgsl"]),
  ];
  const long = sources.map((path) => ({ path, text: textOf(path) }))
    .map(({ path, text }) => ({ path, text, lines: text.trimEnd().split("\n").length }))
    .filter(({ text, lines }) => lines > 300 && !firstCommentHas(text, "Length:"))
    .map(({ path, lines }) => `${path}: ${lines} lines`);
  assertEquals(long, []);
});

Deno.test("the oracle stays short enough to be read at a glance", () => {
  const lines = textOf("src/attention/reference.ts").trimEnd().split("\n").length;
  assertEquals(lines <= 80, true, `src/attention/reference.ts has ${lines} lines, at most 80 are allowed`);
});

Deno.test("sources use no `any` and silence no checker", () => {
  const ways = /@ts-ignore|@ts-nocheck|@ts-expect-error|no-explicit-any/;
  const anyType = /(?:[:<]|(?<!\|)\||(?<!&)&|=>|\bas|\bkeyof|\bextends)\s*any\b(?!\.)|\bany\[\]/;
  const found = [...filesBelow("src", [".ts"]), "mod.ts", "testing.ts"].filter((path) => {
    if (!filesBelow("", [".ts"]).includes(path)) return false;
    const text = textOf(path);
    const code = withoutComments(text).replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
    return ways.test(text) || anyType.test(code);
  });
  assertEquals(found, []);
});

Deno.test("every module opens with a comment that says what it is for", () => {
  const bare = filesBelow("src", [".ts"]).filter((path) => !/^(\/\*\*|\/\/)/.test(textOf(path)));
  assertEquals(bare, []);
});
