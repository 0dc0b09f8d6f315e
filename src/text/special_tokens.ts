/**
 * What `tokenizer_config.json` says of special tokens.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";

/**
 * The content of a JSON file that is an object.
 *
 * @throws {ModelFileError}
 */
export function jsonObject(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ModelFileError(`Cannot read ${name}: expected a JSON object`);
  }
  return value as Record<string, unknown>;
}

/** A token of the configuration, stored as a text or with its properties. */
function contentOf(token: unknown): string | null {
  if (typeof token === "string") return token;
  const content = typeof token === "object" && token !== null && "content" in token ? token.content : null;
  return typeof content === "string" ? content : null;
}

/** The special tokens by the names templates know them by, e.g. `bos_token`. */
export function specialTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const extra = config["extra_special_tokens"];
  const named = { ...(typeof extra === "object" ? extra : null), ...config };
  return Object.fromEntries(
    Object.entries(named).flatMap(([key, token]) => {
      const content = key.endsWith("_token") ? contentOf(token) : null;
      return content === null ? [] : [[key, content]];
    }),
  );
}
