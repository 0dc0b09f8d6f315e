/**
 * Checked reading of configuration fields whose values come from a file or a caller.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "./errors.ts";

/** Bounds of a number field. */
export interface NumberRule<D> {
  /** Smallest value. */
  readonly min?: number;
  /** Largest value. */
  readonly max?: number;
  /** Refuse `min` itself. */
  readonly above?: number;
  /** Only integers. */
  readonly integer?: boolean;
  /** Only multiples of this. */
  readonly multiple_of?: number;
  /** What a missing field (or null) stands for; without it the field is required. */
  readonly default?: D;
}

/** Fields of one JSON object, read with a type and a range. Null counts as missing, as in the reference. */
export class Fields {
  readonly #record: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #file: string | null;

  /** `path` is put before field names in messages; `file` says that the values come from that file. */
  constructor(record: Readonly<Record<string, unknown>>, path = "", file: string | null = null) {
    this.#record = record;
    this.#path = path;
    this.#file = file;
  }

  /** The error of a field: a {@linkcode ModelFileError} when a file holds it, else an {@linkcode InvalidArgument}. */
  refuse(name: string, expected: string): Error {
    const found = show(this.#get(name));
    const what = `Cannot read ${this.#path}${name}: expected ${expected}, found ${found}`;
    return this.#file === null ? new InvalidArgument(what) : new ModelFileError(`${what} (${this.#file})`);
  }

  #get(name: string): unknown {
    return Object.hasOwn(this.#record, name) ? this.#record[name] : undefined;
  }

  /** Whether the field is there and not null. */
  has(name: string): boolean {
    const value = this.#get(name);
    return value !== undefined && value !== null;
  }

  /** Whether there are no fields at all. */
  get is_empty(): boolean {
    return Object.keys(this.#record).length === 0;
  }

  /**
   * A finite number.
   *
   * @throws {InvalidArgument | ModelFileError} when it is missing, no number or out of range.
   */
  number<D = number>(name: string, rule: NumberRule<D> = {}): number | D {
    if (!this.has(name) && rule.default !== undefined) return rule.default;
    const value = this.#get(name);
    const { min = -Infinity, max = Infinity, above = -Infinity, integer = false, multiple_of: step } = rule;
    const fits = typeof value === "number" && Number.isFinite(value) && value >= min && value <= max &&
      value > above && (!integer || Number.isInteger(value)) && (step === undefined || value % step === 0);
    if (fits) return value;
    const kind = step !== undefined ? `a multiple of ${step}` : integer ? "an integer" : "a number";
    const low = above > min ? ` above ${above}` : min > -Infinity ? ` of at least ${min}` : "";
    throw this.refuse(name, kind + low + (max < Infinity ? ` and at most ${max}` : ""));
  }

  /** An integer; `null` stands for missing only when it is the default. */
  integer<D = number>(name: string, rule: NumberRule<D> = {}): number | D {
    return this.number(name, { ...rule, integer: true });
  }

  /**
   * `true` or `false`.
   *
   * @throws {InvalidArgument | ModelFileError} when it is anything else.
   */
  boolean<D = boolean>(name: string, rule: { readonly default?: D } = {}): boolean | D {
    if (!this.has(name) && rule.default !== undefined) return rule.default;
    const value = this.#get(name);
    if (typeof value === "boolean") return value;
    throw this.refuse(name, "true or false");
  }

  /**
   * A string, one of `rule.known` if given.
   *
   * @throws {InvalidArgument | ModelFileError} when it is not.
   */
  string<D = string>(
    name: string,
    rule: { readonly default?: D; readonly known?: readonly string[] } = {},
  ): string | D {
    if (!this.has(name) && rule.default !== undefined) return rule.default;
    const value = this.#get(name);
    if (typeof value === "string" && (rule.known?.includes(value) ?? true)) return value;
    throw this.refuse(name, rule.known === undefined ? "a string" : `one of ${rule.known.join(", ")}`);
  }

  /** A list of integers, a single one counting as a list of one; empty when missing. */
  integers(
    name: string,
    rule: { readonly min?: number; readonly max?: number; readonly most?: number } = {},
  ): number[] {
    const { min = -Infinity, max = Infinity, most = 4096 } = rule;
    if (!this.has(name)) return [];
    const value = this.#get(name);
    const list: readonly unknown[] = Array.isArray(value) ? value : [value];
    const numbers = list.filter((v): v is number =>
      Number.isInteger(v) && Number(v) >= min && Number(v) <= max
    );
    if (numbers.length === list.length && list.length <= most) return numbers;
    throw this.refuse(name, `an integer or a list of up to ${most} integers from ${min} to ${max}`);
  }

  /** A list of strings, each one of `known` if given. */
  strings(name: string, rule: { readonly known?: readonly string[]; readonly most?: number } = {}): string[] {
    const { known, most = 4096 } = rule;
    if (!this.has(name)) return [];
    const value = this.#get(name);
    if (Array.isArray(value) && value.length <= most) {
      const list = value.filter((v): v is string => typeof v === "string" && (known?.includes(v) ?? true));
      if (list.length === value.length) return list;
    }
    throw this.refuse(
      name,
      `a list of up to ${most} strings${known === undefined ? "" : ` of ${known.join(", ")}`}`,
    );
  }

  /**
   * The fields of a nested object.
   *
   * @throws {InvalidArgument | ModelFileError} when it is missing or no object.
   */
  object(name: string): Fields {
    const value = this.#get(name);
    if (!isRecord(value)) throw this.refuse(name, "an object");
    return new Fields(value, `${this.#path}${name}.`, this.#file);
  }
}

/** Whether `value` is an object with fields: not null and not an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as messages show it, cut to a bounded length. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? value.slice(0, 80) + "…" : value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value === "function" || typeof value === "symbol") return `a ${typeof value}`;
  return String(value);
}

const MAX_DEPTH = 32;
const RESERVED = ["__proto__", "constructor", "prototype"];

/**
 * Copies a JSON-like value, so that nothing outside can change it.
 *
 * @throws {InvalidArgument} on functions and the like, reserved names, cycles and nesting deeper than 32.
 */
export function copyJson(value: unknown, path: string, depth = 0): unknown {
  if (depth > MAX_DEPTH) {
    throw new InvalidArgument(`Cannot read ${path.slice(0, 80)}: it is nested deeper than ${MAX_DEPTH}`);
  }
  if (Array.isArray(value)) return value.map((item, i) => copyJson(item, `${path}[${i}]`, depth + 1));
  if (isRecord(value)) {
    const proto: unknown = Object.getPrototypeOf(value);
    if (proto !== null && proto !== Object.prototype) {
      throw new InvalidArgument(
        `Cannot read ${path}: expected plain JSON values, found an object of a class`,
      );
    }
    const copy: Record<string, unknown> = {};
    for (const [key, item] of Object.entries(value)) {
      checkFieldName(key, path);
      if (item !== undefined) copy[key] = copyJson(item, `${path}.${key}`, depth + 1);
    }
    return copy;
  }
  if (value === null || ["string", "number", "boolean"].includes(typeof value)) return value;
  throw new InvalidArgument(`Cannot read ${path}: expected plain JSON values, found ${show(value)}`);
}

/** Refuses names that an object could mistake for its own machinery. */
export function checkFieldName(key: string, path: string): void {
  if (RESERVED.includes(key)) {
    throw new InvalidArgument(`Cannot read ${path}: the field name ${key} is reserved`);
  }
}
