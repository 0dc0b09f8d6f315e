/**
 * ONNX models written by hand: the few protobuf messages a peer's graph needs, and nothing else.
 *
 * Field numbers are those of `onnx.proto3` (onnx/onnx, IR version 10). A message is a list of chunks that is
 * joined once at the end, so that large weights are copied only once.
 *
 * @module
 */

/** Chunks of an encoded message. */
type Chunks = Uint8Array<ArrayBuffer>[];

/** Element types, `TensorProto.DataType`. */
export const ElementType = { float: 1, int32: 6, int64: 7, bool: 9 } as const;

/** Name of an element type. */
export type ElementTypeName = keyof typeof ElementType;

/** An attribute of a node: a float, an integer (bigint), or a list of integers. */
export type Attribute = number | bigint | readonly bigint[];

/** One operator of a graph. */
export interface Node {
  readonly op: string;
  /** Empty: ai.onnx. */
  readonly domain?: string;
  /** Names of values; an empty name leaves an optional input out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

/** An input of a graph; a dimension is a size or the name of a free one. */
export interface GraphInput {
  readonly name: string;
  readonly type: ElementTypeName;
  readonly shape: readonly (number | string)[];
}

/** A constant of a graph. */
export interface Initializer {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data:
    | Float32Array<ArrayBuffer>
    | Int32Array<ArrayBuffer>
    | BigInt64Array<ArrayBuffer>
    | Uint8Array<ArrayBuffer>;
}

/** A graph: nodes in the order they run. */
export interface Graph {
  readonly nodes: readonly Node[];
  readonly inputs: readonly GraphInput[];
  readonly outputs: readonly string[];
  readonly initializers?: readonly Initializer[];
}

const sizeOf = (chunks: Chunks) => chunks.reduce((n, c) => n + c.length, 0);

/** Base-128, low group first. */
function varint(value: number | bigint): Chunks {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const group = Number(rest & 127n);
    rest >>= 7n;
    bytes.push(rest === 0n ? group : group | 128);
  } while (rest !== 0n);
  return [Uint8Array.from(bytes)];
}

/** Wire types: 0 is a varint, 2 a length and its bytes, 5 four bytes. */
const tag = (field: number, wire: number) => varint(field * 8 + wire);
const integer = (field: number, value: number | bigint): Chunks => [...tag(field, 0), ...varint(value)];
const message = (field: number, ...parts: Chunks[]): Chunks => {
  const chunks = parts.flat();
  return [...tag(field, 2), ...varint(sizeOf(chunks)), ...chunks];
};
const text = (field: number, value: string) => message(field, [new TextEncoder().encode(value)]);
const float = (field: number, value: number): Chunks => [
  ...tag(field, 5),
  new Uint8Array(Float32Array.of(value).buffer),
];

function attribute(name: string, value: Attribute): Chunks {
  if (typeof value === "number") return [...text(1, name), ...float(2, value), ...integer(20, 1)];
  if (typeof value === "bigint") return [...text(1, name), ...integer(3, value), ...integer(20, 2)];
  return [...text(1, name), ...value.flatMap((v) => integer(8, v)), ...integer(20, 7)];
}

function node(n: Node): Chunks {
  return [
    ...n.inputs.flatMap((name) => text(1, name)),
    ...n.outputs.flatMap((name) => text(2, name)),
    ...text(4, n.op),
    ...Object.entries(n.attributes ?? {}).flatMap(([name, value]) => message(5, attribute(name, value))),
    ...(n.domain === undefined ? [] : text(7, n.domain)),
  ];
}

function typeOf(data: Initializer["data"]): number {
  if (data instanceof Float32Array) return ElementType.float;
  if (data instanceof Int32Array) return ElementType.int32;
  return data instanceof BigInt64Array ? ElementType.int64 : ElementType.bool;
}

function initializer({ name, shape, data }: Initializer): Chunks {
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return [
    ...shape.flatMap((d) => integer(1, d)),
    ...integer(2, typeOf(data)),
    ...text(8, name),
    ...message(9, [raw]),
  ];
}

function valueInfo(name: string, type: ElementTypeName, shape: GraphInput["shape"] | null): Chunks {
  const dims = (shape ?? []).map((d) => message(1, typeof d === "number" ? integer(1, d) : text(2, d)));
  const tensor = [...integer(1, ElementType[type]), ...(shape === null ? [] : message(2, ...dims))];
  return [...text(1, name), ...message(2, message(1, tensor))];
}

/** The bytes of a model that holds `graph`, with opset 23 of ai.onnx and the contrib operators of ONNX Runtime. */
export function encodeModel(graph: Graph): Uint8Array<ArrayBuffer> {
  const body = [
    ...graph.nodes.flatMap((n) => message(1, node(n))),
    ...text(2, "bench"),
    ...(graph.initializers ?? []).flatMap((i) => message(5, initializer(i))),
    ...graph.inputs.flatMap((i) => message(11, valueInfo(i.name, i.type, i.shape))),
    ...graph.outputs.flatMap((name) => message(12, valueInfo(name, "float", null))),
  ];
  const opset = (domain: string, version: number) => message(8, text(1, domain), integer(2, version));
  const chunks = [
    ...integer(1, 10),
    ...message(7, body),
    ...opset("", 23),
    ...opset("com.microsoft", 1),
  ];
  const bytes = new Uint8Array(sizeOf(chunks));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
