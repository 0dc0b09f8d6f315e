/**
 * SHA-256 of bytes that come in pieces, which Web Crypto does not offer.
 *
 * @module
 */
import { hasFileSystem } from "./source.ts";

/** A hash that is fed. */
export interface Sha256 {
  update(bytes: Uint8Array): void;
  /** The hash of everything so far, as 64 hexadecimal digits. The end. */
  hex(): string;
}

/** Starts a hash: the native one of Deno, elsewhere one in JavaScript. Either is loaded when first needed. */
export async function startSha256(): Promise<Sha256> {
  if (hasFileSystem()) {
    const { createHash } = await import("node:crypto");
    const hash = createHash("sha256");
    return { update: (bytes) => void hash.update(bytes), hex: () => hash.digest("hex") };
  }
  const { sha256 } = await import("npm:@noble/hashes@2.4.0/sha2.js");
  const hash = sha256.create();
  return { update: (bytes) => void hash.update(bytes), hex: () => hex(hash.digest()) };
}

/** SHA-256 of a text, as hexadecimal digits. */
export async function sha256Of(text: string): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
