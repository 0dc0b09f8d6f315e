/**
 * When a row ends: by its length, an end token, a text, or a reason of the caller's.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import type { Settings } from "./settings.ts";

/** What stop strings need of a tokenizer. */
export interface TextDecoding {
  /** Text of token ids. */
  decode(ids: readonly number[], options?: { skip_special_tokens?: boolean }): string;
}

/** Whether a row ends with the last of `input_ids`: a copy of its tokens so far, prompt and padding included. */
export type StoppingCriterionFunction = (input_ids: readonly number[], row: number) => boolean;

/** A criterion of yours: a function, or an object with one. */
export type StoppingCriterion = StoppingCriterionFunction | {
  readonly should_stop: StoppingCriterionFunction;
};

/** The reasons to end a row, asked after every token. They keep no state: rows may be reordered in between. */
export class Stopping {
  readonly #settings: Settings;
  readonly #strings: ((input_ids: readonly number[]) => boolean) | null;

  /** For prompts of `length` tokens. */
  constructor(settings: Settings, length: number) {
    this.#settings = settings;
    const { stop_strings, tokenizer } = settings;
    this.#strings = stop_strings.length === 0 || tokenizer === null
      ? null
      : endsWithText(tokenizer, stop_strings, length);
  }

  /** Whether row `row` ends with the last of its tokens. */
  stops(input_ids: readonly number[], row: number): boolean {
    const { max_length, eos, stopping_criteria } = this.#settings;
    if (input_ids.length >= max_length || eos.includes(input_ids.at(-1)!)) return true;
    if (this.#strings?.(input_ids) ?? false) return true;
    return stopping_criteria.some((criterion, i) => {
      const answer: unknown = criterion([...input_ids], row);
      if (typeof answer === "boolean") return answer;
      throw new InvalidArgument(
        `Cannot generate with stopping_criteria[${i}]: expected true or false from it, got ${kindOf(answer)}`,
      );
    });
  }
}

/** What a function of the caller's gave, in words. A promise that is refused so is not also reported as unhandled. */
export function kindOf(answer: unknown): string {
  if (typeof answer !== "object" || answer === null) return String(answer === null ? answer : typeof answer);
  if ("then" in answer) {
    Promise.resolve(answer).catch(() => {});
    return "a promise";
  }
  const kind = answer.constructor?.name ?? "object";
  return "length" in answer ? `${kind} of length ${answer.length}` : kind;
}

/** Tokens before those that are searched which are decoded with them: decoders treat the first token differently. */
const CONTEXT = 4;

/**
 * Whether one of `strings` is complete with the last token of the text after the first `length` tokens. It may begin in
 * one token and end within another. As a token is at least a byte of text, only so many last tokens are decoded as the
 * longest string has bytes.
 */
export function endsWithText(
  tokenizer: TextDecoding,
  strings: readonly string[],
  length: number,
): (input_ids: readonly number[]) => boolean {
  const longest = Math.max(...strings.map((s) => new TextEncoder().encode(s).length));
  const decode = (ids: readonly number[]) => {
    if (ids.length === 0) return "";
    const text: unknown = tokenizer.decode(ids);
    if (typeof text === "string") return text;
    throw new InvalidArgument(
      `Cannot look for stop_strings: expected a string from tokenizer.decode, got ${kindOf(text)}`,
    );
  };
  return (input_ids) => {
    const from = Math.max(length, input_ids.length - longest);
    const context = input_ids.slice(Math.max(0, from - CONTEXT), from);
    const window = input_ids.slice(from);
    const text = decode([...context, ...window]);
    if (!strings.some((s) => text.includes(s))) return false;
    const start = common(decode(context), text);
    // What was complete before the last token ended the row then, or belongs to the prompt.
    const before = common(decode([...context, ...window.slice(0, -1)]), text);
    return strings.some((s) => {
      const at = text.indexOf(s, Math.max(start, before - s.length + 1));
      return at >= 0;
    });
  };
}

/** Characters that two texts begin with alike. A token that is part of a character changes what was decoded before it. */
function common(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  for (let i = 0; i < most; i++) if (a[i] !== b[i]) return i;
  return most;
}

/**
 * Checks criteria from outside.
 *
 * @throws {InvalidArgument}
 */
export function checkCriteria(given: unknown): StoppingCriterionFunction[] {
  if (given === undefined || given === null) return [];
  if (!Array.isArray(given)) {
    throw new InvalidArgument(
      `Cannot generate with stopping_criteria of ${typeof given}: expected a list of functions or of objects with should_stop`,
    );
  }
  return given.map((item: unknown, i) => {
    if (typeof item === "function") return item as StoppingCriterionFunction;
    const { should_stop } = (item ?? {}) as { should_stop?: unknown };
    if (typeof should_stop === "function") return should_stop.bind(item) as StoppingCriterionFunction;
    throw new InvalidArgument(
      `Cannot generate with stopping_criteria[${i}] of ${typeof item}: expected a function (input_ids, row), or an object with should_stop`,
    );
  });
}

/**
 * Checks a tokenizer from outside.
 *
 * @throws {InvalidArgument}
 */
export function checkDecoder(given: unknown): TextDecoding | null {
  if (given === undefined || given === null) return null;
  if (typeof (given as { decode?: unknown }).decode === "function") return given as TextDecoding;
  throw new InvalidArgument(
    `Cannot generate with tokenizer of ${typeof given}: expected a tokenizer, with decode(ids)`,
  );
}
