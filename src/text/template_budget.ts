/**
 * What a chat template may cost.
 *
 * Templates come with model files, so nobody knows who wrote them, and the engine has no limits of its own: a
 * few characters can loop for hours or double a string until memory is gone. Every step and every byte a
 * template makes is therefore paid from a budget, before it is taken.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";

/** A value of the engine; its classes are not exported. */
export interface Value {
  /** Its kind, e.g. `"StringValue"`. */
  readonly type: string;
  /** What it holds: a primitive, an array of values, or a map of them. */
  readonly value: unknown;
}

/** One unit stands for about 0.1 µs of work and 64 bytes: 32 characters. */
const CHARACTERS = 32;
/** Units of any template, beside what its inputs add: 64 MiB. */
const BASE_UNITS = 2 ** 20;
/** How often a template may look at everything it was given. */
const READINGS = 64;
/** Longest text made of nothing. */
const BASE_CHARACTERS = 2 ** 18;
/** Longest text as a multiple of the inputs. */
const COPIES = 16;
/** Deepest nesting of expressions, blocks and macro calls; the stack holds several times this. */
const MAX_DEPTH = 400;

/** Units of reading a text once. */
export function units(characters: number): number {
  return 1 + Math.floor(characters / CHARACTERS);
}

/** Whether a value is a text. */
export function isText(value: Value): value is Value & { readonly value: string } {
  return typeof value.value === "string";
}

/** Whether a value is a list or a tuple. */
export function isList(value: Value): value is Value & { readonly value: readonly Value[] } {
  return Array.isArray(value.value);
}

/** Whether a value is a mapping or a namespace. */
export function isMapping(value: Value): value is Value & { readonly value: ReadonlyMap<string, Value> } {
  return value.value instanceof Map;
}

/** What a value is made of, nested values included, as often as they occur. */
export interface Extent {
  /** Values. */
  readonly values: number;
  /** Characters of texts and keys. */
  readonly characters: number;
  /** Levels of nesting. */
  readonly depth: number;
}

/** Counts down what one rendering may cost. */
export class Budget {
  #left: number;
  #depth = 0;
  readonly #characters: number;

  /** The budget of a template that is given `inputs`. */
  constructor(inputs: Pick<Extent, "values" | "characters">) {
    this.#left = BASE_UNITS + READINGS * (inputs.values + units(inputs.characters));
    this.#characters = BASE_CHARACTERS + COPIES * inputs.characters;
  }

  /**
   * Takes `amount` units.
   *
   * @throws {ModelFileError} when that is more than is left
   */
  charge(amount: number): void {
    this.#left -= amount;
    // Also refuses NaN.
    if (!(this.#left >= 0)) {
      throw new ModelFileError("Cannot apply the chat template: it loops or copies without end");
    }
  }

  /**
   * Pays for making a text.
   *
   * @throws {ModelFileError} when it is too long
   */
  checkLength(characters: number): void {
    if (!(characters <= this.#characters)) {
      throw new ModelFileError(
        `Cannot apply the chat template: it makes a text of ${characters} characters, ` +
          `expected at most ${this.#characters} from this conversation`,
      );
    }
  }

  /** Pays for reading a value's own text; anything else costs one unit. */
  read(value: Value): void {
    this.charge(isText(value) ? units(value.value.length) : 1);
  }

  /** Pays for finding a text in another, which may take the product of their lengths. */
  search(text: Value, what: Value): void {
    this.read(text);
    if (isText(text) && isText(what)) this.charge(units(text.value.length) * units(what.value.length));
  }

  /** Walks through a value and pays for each part, so that shared and circular parts end. */
  walk(value: Value): Extent {
    let values = 0, characters = 0, depth = 0;
    const open: { readonly value: Value; readonly level: number }[] = [{ value, level: 1 }];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      const { value: part, level } = next;
      this.checkDepth(level);
      this.read(part);
      values++;
      depth = Math.max(depth, level);
      if (isText(part)) characters += part.value.length;
      for (const [key, child] of childrenOf(part)) {
        this.charge(units(key.length));
        characters += key.length;
        open.push({ value: child, level: level + 1 });
      }
    }
    return { values, characters, depth };
  }

  /** Runs `fn` one level deeper. */
  deeper<T>(fn: () => T): T {
    this.checkDepth(++this.#depth);
    try {
      return fn();
    } finally {
      this.#depth--;
    }
  }

  /**
   * Refuses to go `level` levels deep.
   *
   * @throws {ModelFileError}
   */
  checkDepth(level: number): void {
    if (level > MAX_DEPTH) {
      throw new ModelFileError(`Cannot apply the chat template: it nests deeper than ${MAX_DEPTH} levels`);
    }
  }
}

function* childrenOf(value: Value): Generator<readonly [string, Value]> {
  if (isList(value)) { for (const child of value.value) yield ["", child]; }
  else if (isMapping(value)) yield* value.value;
}
