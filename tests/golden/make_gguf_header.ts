/**
 * Writes `gguf/huggingface.json`: what `@huggingface/gguf` reads in the header of `gguf/written.gguf`, and how much of the
 * header it wants to see.
 *
 *     deno run -A --no-lock tests/golden/make_gguf_header.ts
 *
 * @module
 */
import { goldenPath } from "../support/golden.ts";

/** Loaded by a computed name, so that its 6 MB are not in the lock file, which is fetched whole. */
const READER = "npm:@huggingface/gguf@0.4.6";

/** What is used of it. */
interface Reader {
  gguf(path: string, options: { readonly allowLocalFile: true }): Promise<{
    readonly metadata: Readonly<Record<string, unknown>>;
    readonly tensorInfos: readonly {
      readonly name: string;
      /** The contiguous dimension first. */
      readonly shape: readonly bigint[];
      readonly dtype: number;
      readonly offset: bigint;
    }[];
    readonly tensorDataOffset: bigint;
  }>;
}

const { gguf }: Reader = await import(READER);

const WRITTEN = goldenPath("gguf/written.gguf");
/** Plain values: integers of 64 bits as texts where a Number is not exact. */
const plain = (value: unknown): unknown =>
  typeof value === "bigint"
    ? Number.isSafeInteger(Number(value)) ? Number(value) : String(value)
    : Array.isArray(value)
    ? value.map(plain)
    : value;

const { metadata, tensorInfos, tensorDataOffset } = await gguf(WRITTEN, { allowLocalFile: true });
const bytes = await Deno.readFile(WRITTEN);
const cut = await Deno.makeTempFile({ suffix: ".gguf" });
/** Lengths of a cut header that it reads without an error. */
let accepted = 0;
for (let length = 0; length < Number(tensorDataOffset); length++) {
  await Deno.writeFile(cut, bytes.subarray(0, length));
  await gguf(cut, { allowLocalFile: true }).then(() => accepted++, () => {});
}
await Deno.remove(cut);
const recording = {
  reader: READER,
  metadata: Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name, plain(value)])),
  tensors: tensorInfos.map(({ name, shape, dtype, offset }) => ({
    name,
    shape: shape.map(Number).reverse(),
    type: dtype,
    offset: Number(offset) + Number(tensorDataOffset),
  })),
  header_bytes: Number(tensorDataOffset),
  cut_headers_accepted: accepted,
};
await Deno.writeTextFile(goldenPath("gguf/huggingface.json"), `${JSON.stringify(recording, null, 2)}\n`);
