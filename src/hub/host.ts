/**
 * The Rust side of reading untrusted bytes.
 *
 * The WASM bytes are part of the source, so no permission is needed; nothing is instantiated before the
 * first call. Every answer crosses the border as a string of JSON or as bytes.
 *
 * @module
 */
import * as glue from "../../wasm/built/attune_host.js";
import bytes from "../../wasm/built/attune_host_bytes.ts";
import { ModelFileError } from "../errors.ts";

let ready = false;

/** The functions of the Rust module, which is instantiated at the first call. */
export function hostModule(): Omit<typeof glue, "default" | "initSync"> {
  if (!ready) glue.initSync({ module: decodeBase64(bytes) });
  ready = true;
  return glue;
}

/** The bytes of an embedded module. A loop: `Uint8Array.from` with a mapping takes ten times as long. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** One tensor of a safetensors header, as Rust checked it: name, stored dtype, shape, begin, end. */
export type HeaderEntry = readonly [
  name: string,
  dtype: string,
  shape: readonly number[],
  begin: number,
  end: number,
];

/** A checked safetensors header; the tensors tile the data in this order, without overlap or hole. */
export interface SafetensorsHeader {
  /** The entries of `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The tensors, sorted by offset. */
  readonly tensors: readonly HeaderEntry[];
}

/** Most tensors of one file; the largest published ones have some ten thousand. */
const MAX_TENSORS = 2 ** 17;

/** Counts objects up to `most` in JSON that may be malformed: what is quoted does not count. */
function countObjects(json: Uint8Array, most: number): number {
  const [quote, backslash, brace] = [0x22, 0x5c, 0x7b];
  let count = 0, quoted = false;
  for (let i = 0; i < json.length && count <= most; i++) {
    const byte = json[i];
    if (byte === quote) quoted = !quoted;
    else if (quoted && byte === backslash) i++;
    else if (!quoted && byte === brace) count++;
  }
  return count;
}

/**
 * Checks the JSON header of a safetensors file with `dataBytes` bytes of data after it.
 *
 * @throws {ModelFileError} naming the tensor, what was expected and what came.
 */
export function checkSafetensorsHeader(
  header: Uint8Array,
  dataBytes: number,
  file: string,
): SafetensorsHeader {
  // Beside the tensors' objects there are the header's own and that of the metadata.
  if (countObjects(header, MAX_TENSORS + 2) > MAX_TENSORS + 2) {
    throw new ModelFileError(`Cannot read ${file} as safetensors: it has more than ${MAX_TENSORS} tensors`);
  }
  let json: string;
  try {
    json = hostModule().check_safetensors_header(header, dataBytes);
  } catch (error) {
    throw new ModelFileError(`${file}: ${messageOf(error)}`, { cause: error });
  }
  // Rust wrote this JSON from values it had checked.
  const answer: SafetensorsHeader = JSON.parse(json);
  return answer;
}
