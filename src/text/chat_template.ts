/**
 * Chat templates: a conversation as the text a model was trained on.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { type ModelFiles, readText } from "../hub/files.ts";
import type { ReadOptions } from "../hub/source.ts";
import { render } from "./template.ts";
import { parseTemplate, type Template } from "./template_source.ts";

/** A message: who speaks, what is said, and what else the model's template knows, e.g. `tool_calls`. */
export interface ChatMessage {
  /** `"system"`, `"user"`, `"assistant"`, `"tool"`, or what else the template knows. */
  role: string;
  /** A text, or a list of parts such as `{ type: "text", text }`. */
  content?: unknown;
  /** Anything else the template reads. */
  [field: string]: unknown;
}

/** One template, or several by name; `"default"` is the one used, `"tool_use"` where tools are given. */
export type ChatTemplate = string | Readonly<Record<string, string>>;

/** Options of writing a conversation. Unknown keys are variables of the template. */
export interface ChatTemplateOptions {
  /** End with what begins an answer of the assistant; default false. */
  add_generation_prompt?: boolean;
  /**
   * Leave the last message open, for the model to go on with: its content, or the field named here. Not
   * together with `add_generation_prompt`.
   */
  continue_final_message?: boolean | string;
  /** JSON schemas of functions the model may call. */
  tools?: readonly Readonly<Record<string, unknown>>[] | null;
  /** Documents with title and text, for templates that take them. */
  documents?: readonly Readonly<Record<string, unknown>>[] | null;
  /** A template to use instead of the tokenizer's, or the name of one of those. */
  chat_template?: string | null;
  /** A variable of the template. */
  [variable: string]: unknown;
}

/** Largest file with a template. */
const MAX_FILE_BYTES = 2 ** 20;
/** Deepest nesting of a message. */
const MAX_DEPTH = 64;
/** Names a message's reasoning goes by; templates read the first, some the second. */
const REASONING = ["reasoning_content", "thinking", "reasoning"];
/** Marks the end of the message to continue. */
const OPEN_END = "CONTINUE_FINAL_MESSAGE_TAG ";

/**
 * Reads the templates of a model: `chat_template.jinja`, else `tokenizer_config.json`, else `chat_template.json`.
 *
 * @throws {ModelFileError} for a template that is neither a text nor a list of named ones
 */
export async function readChatTemplate(
  files: ModelFiles,
  config: Readonly<Record<string, unknown>>,
  options: ReadOptions = {},
): Promise<ChatTemplate | null> {
  if (await files.has("chat_template.jinja", options)) {
    return await readText(await files.source("chat_template.jinja", options), MAX_FILE_BYTES, options);
  }
  const inConfig = chatTemplateOf(config["chat_template"], `${files.describe()}/tokenizer_config.json`);
  if (inConfig !== null || !(await files.has("chat_template.json", options))) return inConfig;
  const json = await files.json("chat_template.json", MAX_FILE_BYTES, options);
  const template = typeof json === "object" && json !== null && "chat_template" in json
    ? json.chat_template
    : undefined;
  return chatTemplateOf(template, `${files.describe()}/chat_template.json`);
}

function chatTemplateOf(value: unknown, name: string): ChatTemplate | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "string") return value;
  const named = (Array.isArray(value) ? value : []).map((entry: unknown): [string, string] | null =>
    typeof entry === "object" && entry !== null && "name" in entry && "template" in entry &&
      typeof entry.name === "string" && typeof entry.template === "string"
      ? [entry.name, entry.template]
      : null
  ).filter((entry) => entry !== null);
  if (!Array.isArray(value) || named.length === 0 || named.length !== value.length) {
    throw new ModelFileError(
      `Cannot read chat_template of ${name}: expected a text or a list of { name, template }`,
    );
  }
  return Object.fromEntries(named);
}

/** Writes conversations by the templates of one tokenizer. */
export class ChatWriter {
  readonly #templates: ChatTemplate | null;
  readonly #special: Readonly<Record<string, unknown>>;
  #last: { readonly source: string; readonly template: Template } | null = null;

  /** `special` are the tokens templates know by name, such as `bos_token`. */
  constructor(templates: ChatTemplate | null, special: Readonly<Record<string, string>>) {
    this.#templates = templates;
    this.#special = special;
  }

  /**
   * The text of one conversation.
   *
   * @throws {InvalidArgument} for messages or options that do not fit, also where the template refuses them
   * @throws {ModelFileError} for a template that fails or costs too much
   */
  write(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    const { add_generation_prompt = false, continue_final_message = false, chat_template, ...rest } = options;
    const { tools = null, documents = null, ...variables } = rest;
    checkOptions(add_generation_prompt, continue_final_message);
    const source = this.#choose(chat_template, tools !== null);
    const copy = new Copy();
    const chat = checkMessages(messages).map((message, i) => aliased(copy.message(message, i)));
    const open = continue_final_message === false
      ? null
      : leaveOpen(chat, continue_final_message === true ? "content" : continue_final_message, source);
    const text = render(this.#parsed(source), {
      ...this.#special,
      ...copy.record(variables, "the variables"),
      messages: chat,
      tools: copy.list(tools, "tools", "JSON schemas"),
      documents: copy.list(documents, "documents", "objects with title and text"),
      add_generation_prompt,
    }, copy);
    return open === null ? text : cutAfter(text, open);
  }

  #choose(asked: string | null | undefined, withTools: boolean): string {
    if (asked !== undefined && asked !== null && typeof asked !== "string") {
      throw new InvalidArgument(
        `Cannot apply chat_template ${typeof asked}: expected a template or a name of one`,
      );
    }
    const known = this.#templates;
    if (known === null || typeof known === "string") {
      const one = asked ?? known;
      if (one !== null) return one;
      throw new InvalidArgument(
        "Cannot apply a chat template: the tokenizer has none; pass one as chat_template",
      );
    }
    const name = asked ?? (withTools && Object.hasOwn(known, "tool_use") ? "tool_use" : "default");
    if (Object.hasOwn(known, name)) return known[name]!;
    // What is not a name is a template.
    if (typeof asked === "string") return asked;
    throw new InvalidArgument(
      `Cannot choose a chat template: none is called "default"; pass chat_template, one of ${
        Object.keys(known).join(", ").slice(0, 300)
      }`,
    );
  }

  #parsed(source: string): Template {
    if (this.#last?.source !== source) this.#last = { source, template: parseTemplate(source) };
    return this.#last.template;
  }
}

function checkOptions(add_generation_prompt: unknown, continue_final_message: unknown): void {
  if (typeof add_generation_prompt !== "boolean") {
    throw new InvalidArgument(
      `Cannot apply a chat template with add_generation_prompt ${
        String(add_generation_prompt)
      }: expected true or false`,
    );
  }
  if (typeof continue_final_message !== "boolean" && typeof continue_final_message !== "string") {
    throw new InvalidArgument(
      "Cannot apply a chat template with this continue_final_message: expected true, false or the name of a field",
    );
  }
  if (add_generation_prompt && continue_final_message !== false) {
    throw new InvalidArgument(
      "Cannot apply a chat template with both add_generation_prompt and continue_final_message: " +
        "the one begins an answer, the other goes on with the last message",
    );
  }
}

function checkMessages(messages: unknown): readonly unknown[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new InvalidArgument(
      "Cannot apply a chat template: expected messages, a list of at least one { role, content }",
    );
  }
  return messages;
}

/** Copies what a template may see as plain JSON, and measures it. */
class Copy {
  values = 0;
  characters = 0;

  message(message: unknown, index: number): Record<string, unknown> {
    const name = `messages[${index}]`;
    if (!isRecord(message)) {
      throw new InvalidArgument(`Cannot apply a chat template: expected ${name} to be { role, content }`);
    }
    if (typeof message["role"] !== "string") {
      throw new InvalidArgument(`Cannot apply a chat template: expected ${name}.role to be a string`);
    }
    // Many templates take a key for a value, so that null would be printed.
    const said = Object.entries(message).filter(([, value]) => value !== null);
    return this.record(Object.fromEntries(said), name);
  }

  list(value: unknown, name: string, of: string): unknown {
    if (value === null || value === undefined) return null;
    if (!Array.isArray(value) || !value.every(isRecord)) {
      throw new InvalidArgument(`Cannot apply a chat template: expected ${name} to be a list of ${of}`);
    }
    return value.map((item, i) => this.record(item, `${name}[${i}]`));
  }

  record(value: Record<string, unknown>, name: string, level = 1): Record<string, unknown> {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    return Object.fromEntries(entries.map(([key, item]) => {
      this.characters += key.length;
      return [key, this.#plain(item, `${name}.${key}`, level + 1)];
    }));
  }

  #plain(value: unknown, name: string, level: number): unknown {
    if (level > MAX_DEPTH) {
      throw new InvalidArgument(
        `Cannot apply a chat template: ${name.slice(0, 80)}… is nested deeper than ${MAX_DEPTH}`,
      );
    }
    this.values++;
    if (typeof value === "string") this.characters += value.length;
    if (value === null || ["string", "boolean", "number", "undefined"].includes(typeof value)) return value;
    if (Array.isArray(value)) return value.map((item, i) => this.#plain(item, `${name}[${i}]`, level + 1));
    if (isRecord(value)) return this.record(value, name, level);
    if (typeof value === "object") return `<${value.constructor.name}>`; // an image or tensor: its place only
    throw new InvalidArgument(
      `Cannot apply a chat template: ${name.slice(0, 80)} is a ${typeof value}, expected plain data`,
    );
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Puts the reasoning under each name templates read. */
function aliased(message: Record<string, unknown>): Record<string, unknown> {
  const reasoning = REASONING.map((name) => message[name]).find((text) => text !== undefined);
  return reasoning === undefined
    ? message
    : { thinking: reasoning, ...message, reasoning_content: reasoning };
}

/** Marks the end of a field of the last message and returns its text. */
function leaveOpen(chat: Record<string, unknown>[], field: string, source: string): string {
  const last = chat.at(-1)!;
  const value = Object.hasOwn(last, field) ? last[field] : undefined;
  const fields = REASONING.includes(field) ? REASONING.filter((name) => last[name] === value) : [field];
  if (!fields.some((name) => source.includes(name))) {
    throw new InvalidArgument(
      `Cannot continue ${JSON.stringify(field)} of the last message: the template does not read it`,
    );
  }
  if (typeof value === "string") {
    for (const name of fields) last[name] = value + OPEN_END;
    return value;
  }
  const part = Array.isArray(value)
    ? value.findLast((item) => isRecord(item) && typeof item["text"] === "string")
    : undefined;
  if (part === undefined) {
    throw new InvalidArgument(
      `Cannot continue the last message: expected a text as its ${JSON.stringify(field)}`,
    );
  }
  const text = String(part.text);
  part.text += OPEN_END;
  return text;
}

/** What comes before the mark. */
function cutAfter(text: string, continued: string): string {
  const at = text.lastIndexOf(OPEN_END.trim());
  if (at < 0 || !text.includes(continued.trim())) {
    throw new InvalidArgument(
      "Cannot continue the last message: the template does not write it as it is, so its end is not known",
    );
  }
  // A template that trims messages has trimmed the mark, and would have trimmed the message.
  return text.startsWith(OPEN_END, at) ? text.slice(0, at) : text.slice(0, at).trimEnd();
}
