/**
 * Names → functions, with one global map per kind and a local overlay per instance.
 *
 * @module
 */
import { InvalidArgument } from "./errors.ts";

/** Anything callable; the registries of this library hold attention functions and mask formatters. */
export type Callable = (...args: never[]) => unknown;

/** The global half of a registry: one map shared by every instance of a registry class. */
export class GlobalEntries<T extends Callable> {
  readonly #entries = new Map<string, T>();
  /** What the entries are, for error messages, e.g. `"attention function"`. */
  readonly what: string;

  /** Names what the entries are. */
  constructor(what: string) {
    this.what = what;
  }

  /**
   * Adds or replaces an entry.
   *
   * @throws {InvalidArgument} for an empty name or a value that is not a function.
   */
  register(name: string, value: T): void {
    checkEntry(this.what, name, value);
    this.#entries.set(name, value);
  }

  /** The entry of `name`, if any. */
  get(name: string): T | undefined {
    return this.#entries.get(name);
  }

  /** Registered names, in order of registration. */
  keys(): IterableIterator<string> {
    return this.#entries.keys();
  }
}

/**
 * A local overlay over global entries: `set` and `delete` touch only this instance, `get` prefers it, and
 * `valid_keys` lists the union. A subclass gives its static `register`, which writes the global map.
 *
 * Method: Transformers' `GeneralInterface`.
 */
export class Registry<T extends Callable> {
  readonly #global: GlobalEntries<T>;
  readonly #local = new Map<string, T>();

  /** Lays an empty overlay over `global`. */
  constructor(global: GlobalEntries<T>) {
    this.#global = global;
  }

  /**
   * Adds or replaces an entry of this instance only; it hides a global one of the same name.
   *
   * @throws {InvalidArgument} for an empty name or a value that is not a function.
   */
  set(name: string, value: T): void {
    checkEntry(this.#global.what, name, value);
    this.#local.set(name, value);
  }

  /** The local entry of `name`, else the global one, else undefined. */
  get(name: string): T | undefined {
    return this.#local.get(name) ?? this.#global.get(name);
  }

  /** Whether {@linkcode Registry.get} finds `name`. */
  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  /** Removes a local entry, so that a global one shows again, and says whether there was one. */
  delete(name: string): boolean {
    return this.#local.delete(name);
  }

  /** All registered names: the global ones, then the local ones that are not also global. */
  valid_keys(): string[] {
    return [...new Set([...this.#global.keys(), ...this.#local.keys()])];
  }
}

function checkEntry(what: string, name: unknown, value: unknown): void {
  if (typeof name !== "string" || name === "") {
    throw new InvalidArgument(
      `Cannot register a${/^[aeiou]/.test(what) ? "n" : ""} ${what} under ${
        typeof name === "string" ? '""' : `a ${typeof name}`
      }: expected a non-empty string`,
    );
  }
  if (typeof value !== "function") {
    throw new InvalidArgument(
      `Cannot register "${name}" as a${/^[aeiou]/.test(what) ? "n" : ""} ${what}: expected a function, got ${
        value === null ? "null" : typeof value
      }`,
    );
  }
}
