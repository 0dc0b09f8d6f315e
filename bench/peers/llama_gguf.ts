/**
 * The Llama decoder as a GGUF file, from the same checkpoint.
 *
 * @module
 */
import { type Checkpoint, shapesOfLlama } from "../checkpoint.ts";
import { type GgmlType, type MetaValue, writeGguf } from "../../tests/support/gguf.ts";
import { llamaMetadata, llamaTensor } from "../../tests/support/llama_gguf.ts";

/** The text of token `id`: no other token's text is a part of it. */
export const tokenText = (id: number) => `<${id}>`;

/** Ids below have texts that are found again in a prompt. */
const FOUND_BELOW = 2048;

/**
 * What stands for the last 256 ids. Machine code cannot load a vocabulary that cannot spell every byte; WebAssembly
 * cannot return text that is not UTF-8, which such tokens make.
 */
export type LastTokens = "texts" | "bytes";

/** Writes the checkpoint with matrices of `type`; rows that have no whole blocks become F16, as in llama.cpp. */
export function writeLlamaGguf(path: string, checkpoint: Checkpoint, type: GgmlType, last: LastTokens): void {
  const { config: c, shapes } = checkpoint;
  const ids = Array.from({ length: c.vocab_size }, (_, id) => id);
  const [NORMAL, UNKNOWN, CONTROL, USER, BYTE] = [1, 2, 3, 4, 6];
  const byteOf = (id: number) => last === "bytes" ? id - (c.vocab_size - 256) : -1;
  const metadata: Record<string, MetaValue> = {
    ...llamaMetadata(c),
    "tokenizer.ggml.model": { text: "llama" },
    "tokenizer.ggml.tokens": {
      texts: ids.map((id) =>
        byteOf(id) < 0 ? tokenText(id) : `<0x${byteOf(id).toString(16).toUpperCase().padStart(2, "0")}>`
      ),
    },
    "tokenizer.ggml.scores": { f32s: new Float32Array(c.vocab_size) },
    "tokenizer.ggml.token_type": {
      i32s: Int32Array.from(
        ids,
        (id) =>
          [UNKNOWN, CONTROL, CONTROL][id] ?? (byteOf(id) >= 0 ? BYTE : id < FOUND_BELOW ? USER : NORMAL),
      ),
    },
    "tokenizer.ggml.unknown_token_id": { u32: 0 },
    "tokenizer.ggml.bos_token_id": { u32: 1 },
    "tokenizer.ggml.eos_token_id": { u32: 2 },
    "tokenizer.ggml.add_bos_token": { bool: false },
    "tokenizer.ggml.add_space_prefix": { bool: false },
  };
  const tensors = Object.keys(shapesOfLlama(c)).map((name) =>
    llamaTensor(name, shapes.get(name)!, type, c, () => checkpoint.read(name))
  );
  writeGguf(path, metadata, tensors);
}
