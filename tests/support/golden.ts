/**
 * The recordings in `tests/golden`: cases by group, and their tensors. The reader is small and of its own, so that
 * a fault of `src/hub` cannot hide itself here.
 *
 * @module
 */

/** A tensor of a recording. Booleans are stored as 0 and 1, int64 as int32. */
export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly dtype:
    | "float32"
    | "float16"
    | "bfloat16"
    | "int32"
    | "int64"
    | "uint8"
    | "int8"
    | "bool"
    | "float64";
  readonly data: Float64Array<ArrayBuffer>;
}

/** A reference to a tensor of a recording: `"file#name"`. */
export interface TensorRef {
  readonly $t: string;
}

/** JSON, with tensor references in it. */
export type GoldenValue =
  | null
  | boolean
  | number
  | string
  | TensorRef
  | readonly GoldenValue[]
  | { readonly [key: string]: GoldenValue };

/** One recorded call. The shape of `params` and `expect` depends on `op`; see `tests/golden/README.md`. */
export interface GoldenCase {
  readonly id: string;
  readonly group: string;
  readonly op: string;
  readonly params: Readonly<Record<string, GoldenValue>>;
  readonly expect: GoldenValue;
  readonly atol?: number;
  readonly rtol?: number;
  readonly note?: string;
  readonly compare_rows?: string;
}

interface GoldenIndex {
  readonly counts: Readonly<Record<string, number>>;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
  readonly cases: readonly GoldenCase[];
}

const root = new URL("../golden/", import.meta.url);

/** Location of a file of the recordings. */
export function goldenPath(name: string): string {
  return decodeURIComponent(new URL(name, root).pathname);
}

let index: GoldenIndex | undefined;

/** The whole index. */
export function goldenIndex(): GoldenIndex {
  return index ??= JSON.parse(Deno.readTextFileSync(goldenPath("index.json"))) as GoldenIndex;
}

/** The cases of a group, or of one operation of it. @throws where there is none, so that a typo does not pass */
export function goldenCases(group: string, op?: string): readonly GoldenCase[] {
  const cases = goldenIndex().cases.filter((c) => c.group === group && (op === undefined || c.op === op));
  if (cases.length === 0) {
    throw new Error(`No recorded case has group "${group}"${op ? ` and op "${op}"` : ""}`);
  }
  return cases;
}

/** Whether a value of a case is a reference to a tensor. */
export function isTensorRef(value: GoldenValue | undefined): value is TensorRef {
  return typeof value === "object" && value !== null && "$t" in value && typeof value.$t === "string";
}

const files = new Map<string, ReadonlyMap<string, GoldenTensor>>();

/** The tensor a case refers to. */
export function goldenTensor(ref: GoldenValue | undefined): GoldenTensor {
  if (!isTensorRef(ref)) throw new Error(`Not a tensor reference: ${JSON.stringify(ref)}`);
  const [file, name] = ref.$t.split("#") as [string, string];
  const tensor = goldenFile(file).get(name);
  if (tensor === undefined) throw new Error(`${file} has no tensor ${name}`);
  return tensor;
}

/** The tensors of one safetensors file, by name. */
export function goldenFile(file: string): ReadonlyMap<string, GoldenTensor> {
  let tensors = files.get(file);
  if (tensors === undefined) files.set(file, tensors = parse(Deno.readFileSync(goldenPath(file))));
  return tensors;
}

const DTYPES = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  I64: "int64",
  I32: "int32",
  I8: "int8",
  U8: "uint8",
  BOOL: "bool",
} as const;

interface Entry {
  readonly dtype: keyof typeof DTYPES;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** Safetensors: 8 bytes with the length of a JSON header, the header, then the values, little endian. */
function parse(bytes: Uint8Array<ArrayBuffer>): ReadonlyMap<string, GoldenTensor> {
  const header = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const entries = JSON.parse(new TextDecoder().decode(bytes.subarray(8, header))) as Record<string, Entry>;
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, entry] of Object.entries(entries)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [from, to] } = entry;
    tensors.set(name, {
      shape,
      dtype: DTYPES[dtype],
      data: widen(dtype, bytes.slice(header + from, header + to).buffer),
    });
  }
  return tensors;
}

function widen(dtype: Entry["dtype"], b: ArrayBuffer): Float64Array<ArrayBuffer> {
  switch (dtype) {
    case "F64":
      return new Float64Array(b);
    case "F32":
      return Float64Array.from(new Float32Array(b));
    case "F16":
      return Float64Array.from(new Float16Array(b));
    case "BF16":
      return Float64Array.from(new Float32Array(Uint32Array.from(new Uint16Array(b), (x) => x << 16).buffer));
    case "I64":
      return Float64Array.from(new BigInt64Array(b), Number);
    case "I32":
      return Float64Array.from(new Int32Array(b));
    case "I8":
      return Float64Array.from(new Int8Array(b));
    case "U8":
    case "BOOL":
      return Float64Array.from(new Uint8Array(b));
  }
}
