/**
 * A tokenizer with a chat template, made in memory.
 *
 * @module
 */
import { tokenizerOf } from "../../src/text/tokenizer.ts";
import type { ChatMessage, ChatTemplate, Tokenizer } from "../../mod.ts";

/** What a template is given where a test does not say. */
export const HELLO: readonly ChatMessage[] = [{ role: "user", content: "Hello" }];

/** A tokenizer of single bytes and three special tokens. */
export function chatTokenizer(chat_template: ChatTemplate | null): Tokenizer {
  const special = ["<s>", "</s>", "<pad>"];
  const letters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const vocab = [...special, ...letters, "Ġ", "Ċ"];
  return tokenizerOf(
    {
      added_tokens: special.map((content, id) => ({ id, content, special: true })),
      model: { type: "BPE", vocab: Object.fromEntries(vocab.map((token, id) => [token, id])), merges: [] },
      normalizer: null,
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
      post_processor: null,
      decoder: { type: "ByteLevel" },
    },
    { bos_token: "<s>", eos_token: { content: "</s>" }, pad_token: "<pad>" },
    "test",
    chat_template,
  );
}

/** What `template` writes for `messages`. */
export function written(
  template: string,
  options: Record<string, unknown> = {},
  messages: readonly ChatMessage[] = HELLO,
): string {
  return chatTokenizer(template).apply_chat_template(messages, { ...options, tokenize: false });
}
