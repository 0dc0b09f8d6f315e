/**
 * How each element type lies in a storage buffer, as WGSL.
 *
 * Half types are packed two to a u32 and widened with integer operations or `unpack2x16float`, so no kernel
 * needs the optional `shader-f16` feature; bytes are packed four to one. The `x4` forms hold rows whose offset and stride are multiples of
 * four elements and load four at once.
 *
 * @module
 */

/** WGSL of one element type. */
export interface ElementType {
  /** Type of the elements of the buffer's array. */
  readonly storage: string;
  /** Type a kernel computes with. */
  readonly value: "f32" | "i32" | "u32";
  /** Expression that loads element `i` of the array `name`; absent for vector forms. */
  readonly load?: (name: string) => string;
  /** Statements that return the four elements from `i`, a multiple of four, of `name`; only for vector forms. */
  readonly load4?: (name: string) => string;
  /** Expression for the bits of `v`; only for types narrower than a word, which are stored by two atomic operations. */
  readonly bits?: string;
  /** How many bits those are; default: 16. */
  readonly width?: 8;
  /** Functions `bits` needs. */
  readonly functions?: string;
}

/** `(bits of the half at i)` in the packed array. */
const half = (name: string) => `(${name}[i >> 1u] >> ((i & 1u) * 16u))`;

/** The byte at i in the packed array, signed. */
const byte = (name: string) => `extractBits(bitcast<i32>(${name}[i >> 2u]), (i & 3u) * 8u, 8u)`;

// Round to nearest even by hand: WGSL leaves the rounding of pack2x16float and its overflow to the implementation.
const F16_BITS = `fn f16_bits(v: f32) -> u32 {
let b = bitcast<u32>(v); let s = (b >> 16u) & 0x8000u; let a = b & 0x7fffffffu;
if (a > 0x7f800000u) { return s | 0x7e00u; }
if (a >= 0x477ff000u) { return s | 0x7c00u; }
if (a < 0x38800000u) {
if (a < 0x33000000u) { return s; }
let e = 126u - (a >> 23u); let m = (a & 0x7fffffu) | 0x800000u; let q = m >> e;
let r = m & ((1u << e) - 1u); let h = 1u << (e - 1u);
return s | (q + select(0u, 1u, r > h || (r == h && (q & 1u) == 1u)));
}
return s | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u);
}`;

const BF16_BITS = `fn bf16_bits(v: f32) -> u32 {
let b = bitcast<u32>(v);
if ((b & 0x7fffffffu) > 0x7f800000u) { return (b >> 16u) | 0x40u; }
return (b + 0x7fffu + ((b >> 16u) & 1u)) >> 16u;
}`;

/** All element types by the name that variants use. */
export const ELEMENT_TYPES: Readonly<Record<string, ElementType>> = {
  f32: { storage: "f32", value: "f32", load: (n) => `${n}[i]` },
  i32: { storage: "i32", value: "i32", load: (n) => `${n}[i]` },
  u32: { storage: "u32", value: "u32", load: (n) => `${n}[i]` },
  i8: { storage: "u32", value: "i32", load: byte, bits: "bitcast<u32>(v) & 0xffu", width: 8 },
  raw8: {
    storage: "u32",
    value: "u32",
    load: (n) => `(${n}[i >> 2u] >> ((i & 3u) * 8u)) & 0xffu`,
    bits: "v",
    width: 8,
  },
  // Keys and values in bytes, whose scale the kernel knows.
  q8: { storage: "u32", value: "f32", load: (n) => `f32(${byte(n)})` },
  q8x4: {
    storage: "u32",
    value: "f32",
    load4: (n) =>
      `let w = vec4<i32>(bitcast<i32>(${n}[i >> 2u])); ` +
      `return vec4<f32>((w << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));`,
  },
  raw16: { storage: "u32", value: "u32", load: (n) => `${half(n)} & 0xffffu`, bits: "v" },
  f16: {
    storage: "u32",
    value: "f32",
    load: (n) => `unpack2x16float(${half(n)}).x`,
    bits: "f16_bits(v)",
    functions: F16_BITS,
  },
  bf16: {
    storage: "u32",
    value: "f32",
    load: (n) => `bitcast<f32>(${half(n)} << 16u)`,
    bits: "bf16_bits(v)",
    functions: BF16_BITS,
  },
  f32x4: { storage: "vec4<f32>", value: "f32", load4: (n) => `return ${n}[i >> 2u];` },
  f16x4: {
    storage: "vec2<u32>",
    value: "f32",
    load4: (n) => `let w = ${n}[i >> 2u]; return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));`,
  },
  bf16x4: {
    storage: "vec2<u32>",
    value: "f32",
    load4: (n) =>
      `let w = ${n}[i >> 2u]; return vec4<f32>(bitcast<f32>(w.x << 16u), bitcast<f32>(w.x & 0xffff0000u), ` +
      `bitcast<f32>(w.y << 16u), bitcast<f32>(w.y & 0xffff0000u));`,
  },
};

/** Body of `fn (i: u32) -> value`. */
export function loader(name: string, type: ElementType): string {
  if (!type.load) throw new SyntaxError(`${name} has a vector type and no scalar loads`);
  return `return ${type.load(name)};`;
}

/** Body of `fn (i: u32, n: u32) -> vec4<f32>`: elements i…i+3, of which those from the n-th on are zeros. */
export function vectorLoader(name: string, type: ElementType): string {
  if (type.load4) return type.load4(name);
  const load = type.load!(name);
  const at = (k: number) => load.replaceAll(/\bi\b/g, `(i + ${k}u)`);
  return `return vec4<f32>(select(0.0, ${at(0)}, n > 0u), select(0.0, ${at(1)}, n > 1u), ` +
    `select(0.0, ${at(2)}, n > 2u), select(0.0, ${at(3)}, n > 3u));`;
}

/** The function `head` (`fn store(i: u32, v: value)`) that stores into `name`, with what it needs. */
export function storer(head: string, name: string, type: ElementType): string {
  if (type.bits === undefined) return `${head} { ${name}[i] = v; }`;
  // The parts of a word belong to several invocations: clearing and setting only their own bits commutes.
  const [last, width, shift, mask] = type.width === 8 ? [3, 8, 2, "0xffu"] : [1, 16, 1, "0xffffu"];
  return `${type.functions ?? ""}\n${head} { let s = (i & ${last}u) * ${width}u; ` +
    `atomicAnd(&${name}[i >> ${shift}u], ~(${mask} << s)); ` +
    `atomicOr(&${name}[i >> ${shift}u], (${type.bits}) << s); }`;
}

/** The function `head` (`fn bits(v: value) -> u32`) that packs a value into 16 bits, with what it needs. */
export function packer(head: string, type: ElementType): string {
  if (type.bits === undefined) throw new SyntaxError("only half types are packed");
  return `${type.functions ?? ""}\n${head} { return ${type.bits}; }`;
}
