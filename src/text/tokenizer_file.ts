/**
 * What a tokenizer's files may ask for, checked before they reach the engine that runs them.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";

/** Most tokens of a vocabulary, and largest id; the largest published vocabularies have 262,144. */
const MAX_TOKENS = 2 ** 21;
/** Longest token; some are runs of hundreds of spaces. */
const MAX_TOKEN_LENGTH = 4096;
/** Longest regular expression. */
const MAX_PATTERN = 2 ** 14;
/** Deepest nesting of normalizers, pre-tokenizers, decoders and post-processors. */
const MAX_DEPTH = 16;
/** Most of them in one pipeline. */
const MAX_STEPS = 64;
/** How many times longer the replacements of a pipeline may make a text. */
const MAX_GROWTH = 256;
/** Open-ended repetitions in a row of one alternative: matching takes time to that power. */
const MAX_REPETITIONS = 6;

/** Kinds of models the engine knows. */
const MODELS = ["BPE", "Unigram", "WordPiece"];
/** The fields of `tokenizer.json` that hold a pipeline. */
const PIPELINES = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];

/**
 * Checks `tokenizer.json` and `tokenizer_config.json`.
 *
 * @throws {ModelFileError} naming the field, what was expected and what was found
 */
export function checkTokenizerFile(
  json: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
  name: string,
): void {
  const refuse = (what: string): never => {
    throw new ModelFileError(`Cannot build the tokenizer of ${name}: ${what}`);
  };
  const model = json["model"];
  if (!isRecord(model)) return refuse(`expected model to be an object, found ${kind(model)}`);
  const type = model["type"];
  // Old files leave it out.
  if (type !== undefined && !MODELS.includes(String(type))) {
    refuse(`expected model.type to be one of ${MODELS.join(", ")}, found ${kind(type)}`);
  }
  checkVocabulary(model, refuse);
  checkMerges(model["merges"], refuse);
  checkAddedTokens(json["added_tokens"] ?? [], refuse);
  for (const field of PIPELINES) {
    const pipeline = json[field];
    if (pipeline === undefined) refuse(`expected ${field}, an object or null`);
    if (pipeline === null) continue;
    if (isRecord(pipeline)) new Pipeline(field, refuse).check(pipeline, 1);
    else refuse(`expected ${field} to be an object or null, found ${kind(pipeline)}`);
  }
  for (const field of ["additional_special_tokens"]) {
    const list = config[field];
    if (list !== undefined && list !== null && !Array.isArray(list)) {
      refuse(`expected ${field} to be a list, found ${kind(list)}`);
    }
  }
}

type Refuse = (what: string) => never;

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kind(value: unknown): string {
  return value === null || value === undefined
    ? "nothing"
    : Array.isArray(value)
    ? "a list"
    : typeof value === "object"
    ? "an object"
    : String(value).slice(0, 40);
}

function isId(id: unknown): boolean {
  return typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MAX_TOKENS;
}

function isToken(token: unknown): boolean {
  return typeof token === "string" && token.length <= MAX_TOKEN_LENGTH;
}

/** A map from token to id, or for Unigram a list of tokens with scores. */
function checkVocabulary(model: Readonly<Record<string, unknown>>, refuse: Refuse): void {
  const vocab = model["vocab"];
  if (Array.isArray(vocab)) {
    if (vocab.length === 0 || vocab.length > MAX_TOKENS) {
      refuse(`expected 1 to ${MAX_TOKENS} tokens in model.vocab`);
    }
    const odd = vocab.findIndex((entry: unknown) =>
      !Array.isArray(entry) || !isToken(entry[0]) || !Number.isFinite(entry[1])
    );
    if (odd >= 0) refuse(`expected model.vocab[${odd}] to be a token and its score`);
    const unk = model["unk_id"];
    if (unk !== undefined && unk !== null && !(isId(unk) && Number(unk) < vocab.length)) {
      refuse(`expected model.unk_id to be an index of model.vocab, found ${kind(unk)}`);
    }
    return;
  }
  if (!isRecord(vocab)) return refuse(`expected model.vocab to be an object or a list, found ${kind(vocab)}`);
  const seen = new Set<unknown>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isToken(token)) refuse(`expected tokens of at most ${MAX_TOKEN_LENGTH} characters in model.vocab`);
    if (!isId(id)) {
      refuse(
        `expected the id of ${JSON.stringify(token.slice(0, 40))} to be an integer from 0 to ${
          MAX_TOKENS - 1
        }, found ${kind(id)}`,
      );
    }
    if (seen.has(id)) refuse(`expected each id in model.vocab once, found ${Number(id)} again`);
    seen.add(id);
  }
}

/** Pairs, as lists or as texts with a space. */
function checkMerges(merges: unknown, refuse: Refuse): void {
  if (merges === undefined || merges === null) return;
  if (!Array.isArray(merges) || merges.length > MAX_TOKENS) {
    return refuse(`expected model.merges to be a list of at most ${MAX_TOKENS}, found ${kind(merges)}`);
  }
  const odd = merges.findIndex((pair: unknown) =>
    Array.isArray(pair) ? pair.length !== 2 || !pair.every(isToken) : !isToken(pair)
  );
  if (odd >= 0) refuse(`expected model.merges[${odd}] to be a pair of tokens`);
}

function checkAddedTokens(added: unknown, refuse: Refuse): void {
  if (!Array.isArray(added) || added.length > MAX_TOKENS) {
    return refuse(`expected added_tokens to be a list, found ${kind(added)}`);
  }
  const odd = added.findIndex((token: unknown) =>
    !isRecord(token) || !isId(token["id"]) || !isToken(token["content"]) || token["content"] === ""
  );
  if (odd >= 0) refuse(`expected added_tokens[${odd}] to have an id and a content`);
}

/** Checks a tree of steps, and what they do to a text together. */
class Pipeline {
  readonly #field: string;
  readonly #refuse: Refuse;
  #steps = 0;
  #growth = 1;

  constructor(field: string, refuse: Refuse) {
    this.#field = field;
    this.#refuse = refuse;
  }

  check(step: Readonly<Record<string, unknown>>, depth: number): void {
    const { content, prepend, pattern, start, stop } = step;
    if (depth > MAX_DEPTH || ++this.#steps > MAX_STEPS) {
      this.#refuse(`expected at most ${MAX_STEPS} steps in ${this.#field}, nested at most ${MAX_DEPTH} deep`);
    }
    for (const text of [content, prepend, step["prefix"], step["suffix"], step["replacement"]]) {
      if (text !== undefined && text !== null && !isToken(text)) {
        this.#refuse(`expected texts of at most ${MAX_TOKEN_LENGTH} characters in ${this.#field}`);
      }
    }
    for (const count of [start, stop]) {
      if (count !== undefined && !(isId(count) && Number(count) <= MAX_TOKEN_LENGTH)) {
        this.#refuse(`expected start and stop in ${this.#field} to be small integers, found ${kind(count)}`);
      }
    }
    const { type } = step;
    if ((type === "Split" || type === "Replace") && (pattern === undefined || pattern === null)) {
      this.#refuse(`expected ${type} in ${this.#field} to have a pattern`);
    }
    const matched = pattern === undefined || pattern === null ? 1 : this.#pattern(pattern);
    if (typeof content === "string" && pattern !== undefined) {
      this.#growth *= Math.max(1, content.length / matched);
    }
    if (this.#growth > MAX_GROWTH) {
      this.#refuse(`expected ${this.#field} to make a text at most ${MAX_GROWTH} times longer`);
    }
    for (const value of Object.values(step)) {
      if (!Array.isArray(value)) continue;
      for (const inner of value) if (isRecord(inner) && "type" in inner) this.check(inner, depth + 1);
    }
  }

  /** Checks a pattern and returns the fewest characters it matches, at least 1. */
  #pattern(pattern: unknown): number {
    const { Regex, String: literal } = isRecord(pattern) ? pattern : {};
    const given = Regex ?? literal;
    if (typeof given !== "string" || given.length > MAX_PATTERN) {
      return this.#refuse(
        `expected a pattern in ${this.#field} to be { Regex } or { String } of at most ${MAX_PATTERN} characters`,
      );
    }
    if (Regex === undefined) return Math.max(1, given.length);
    const why = slowness(given);
    if (why !== null) {
      this.#refuse(`expected a pattern in ${this.#field} that matches in bounded time: ${why}`);
    }
    return 1;
  }
}

/**
 * Why matching a regular expression may take time that grows exponentially, or null. A backtracking matcher
 * tries every way to divide a text among repetitions: a repetition of what is itself repeated or a choice has
 * exponentially many, several repetitions in a row polynomially many.
 */
export function slowness(regex: string): string | null {
  interface Group {
    /** Whether it holds a choice or an open-ended repetition. */
    varies: boolean;
    /** Open-ended repetitions in the present alternative. */
    repetitions: number;
  }
  const open: Group[] = [{ varies: false, repetitions: 0 }];
  let last: Group | null = null;
  for (let i = 0; i < regex.length;) {
    const here = open.at(-1)!;
    const c = regex[i]!;
    if (c === "\\") {
      i += 2;
      last = null;
    } else if (c === "[") {
      i = afterClass(regex, i);
      last = null;
    } else if (c === "(") {
      open.push({ varies: false, repetitions: 0 });
      i++;
      if (regex[i] === "?") i++;
    } else if (c === ")") {
      if (open.length > 1) {
        last = open.pop()!;
        const outer = open.at(-1)!;
        outer.repetitions += last.repetitions;
        if (last.varies) outer.varies = true;
      }
      i++;
    } else if (c === "|") {
      here.varies = true;
      here.repetitions = 0;
      last = null;
      i++;
    } else {
      const repeat = /^(?:[*+]|\{(\d*)(,?)(\d*)\})[?+]?/.exec(regex.slice(i, i + 32));
      if (repeat !== null) {
        const counted = repeat[0].startsWith("{");
        const most = !counted
          ? Infinity
          : repeat[2] === ","
          ? Number(repeat[3] || Infinity)
          : Number(repeat[1]);
        const many = most > 16;
        if (most > 1 && last?.varies) return "it repeats a group that holds a repetition or a choice";
        if (many) {
          here.varies = true;
          if (++here.repetitions > MAX_REPETITIONS) {
            return `it has more than ${MAX_REPETITIONS} repetitions in a row`;
          }
        }
        if (most !== Number(repeat[1])) here.varies = true;
        i += repeat[0].length;
      } else {
        if (c === "?") here.varies = true;
        i++;
      }
      last = null;
    }
  }
  return null;
}

/** The index after a character class, which may hold others. */
function afterClass(regex: string, from: number): number {
  let depth = 0;
  for (let i = from; i < regex.length; i++) {
    if (regex[i] === "\\") i++;
    else if (regex[i] === "[") depth++;
    else if (regex[i] === "]" && i > from + 1 && --depth === 0) return i + 1;
  }
  return regex.length;
}
