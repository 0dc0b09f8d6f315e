/**
 * A conversation: its turns, how they become tokens, and how they are kept in a file.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { writeOutput } from "./output.ts";

/** Who says something. */
const ROLES = ["system", "user", "assistant"] as const;

/** One turn. */
export interface Message {
  readonly role: typeof ROLES[number];
  readonly content: string;
}

/** Turns in order; a system text, where there is one, is the first. */
export class Conversation {
  #messages: Message[] = [];
  readonly #tokenizer: Tokenizer;
  /** Whether turns are put into the model's chat template; else they are joined by line breaks. */
  readonly templated: boolean;

  /** Without turns. `plain` leaves the tokenizer's chat template aside. */
  constructor(tokenizer: Tokenizer, plain: boolean) {
    this.#tokenizer = tokenizer;
    this.templated = !plain && tokenizer.chat_template !== null;
  }

  /** The turns so far. */
  get messages(): readonly Message[] {
    return this.#messages;
  }

  /** Adds a turn. */
  add(role: Message["role"], content: string): void {
    this.#messages.push({ role, content });
  }

  /** Replaces what the conversation begins with; empty text takes it away. */
  setSystem(content: string): void {
    const rest = this.#messages.filter(({ role }) => role !== "system");
    this.#messages = content === "" ? rest : [{ role: "system", content }, ...rest];
  }

  /** Forgets every turn but the system text. */
  reset(): void {
    this.#messages = this.#messages.filter(({ role }) => role === "system");
  }

  /** Takes back the last thing the user said and what followed. False where there is none. */
  undo(): boolean {
    const last = this.#messages.findLastIndex(({ role }) => role === "user");
    if (last === -1) return false;
    this.#messages.splice(last);
    return true;
  }

  /** The token ids an answer continues. */
  tokens(): number[] {
    if (!this.templated) {
      return this.#tokenizer.encode(this.#messages.map(({ content }) => `${content}\n`).join(""));
    }
    const text = this.#tokenizer.apply_chat_template(this.#messages.map((message) => ({ ...message })), {
      add_generation_prompt: true,
      tokenize: false,
    });
    // The template writes the special tokens itself.
    return this.#tokenizer.encode(text, { add_special_tokens: false });
  }

  /** Writes the turns as JSON. @throws {InvalidArgument} for a file that cannot be written */
  async save(file: string): Promise<void> {
    await writeOutput(file, `${JSON.stringify(this.#messages, null, 2)}\n`);
  }

  /**
   * Replaces the turns by those of a file.
   *
   * @throws {InvalidArgument} for a file that holds something else; the turns are as before then
   */
  async load(file: string): Promise<void> {
    const text = await Deno.readTextFile(file);
    const refuse = (why: string, cause?: unknown) =>
      new InvalidArgument(
        `Cannot load ${file} as a conversation: expected a list of { role: ${
          ROLES.join(" | ")
        }, content }, ${why}`,
        { cause },
      );
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw refuse("it is no JSON", error);
    }
    if (!Array.isArray(json)) throw refuse("it holds no list");
    const odd = json.findIndex((item) => !isMessage(item));
    if (odd !== -1) throw refuse(`item ${odd} is something else`);
    this.#messages = (json as Message[]).map(({ role, content }) => ({ role, content }));
  }
}

function isMessage(value: unknown): value is Message {
  if (typeof value !== "object" || value === null) return false;
  const { role, content } = value as Record<string, unknown>;
  return typeof content === "string" && ROLES.some((known) => known === role);
}
