/**
 * llama.cpp as a peer, in processes of its own: wllama, which is WebAssembly, and node-llama-cpp, which is not.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { Child } from "./child.ts";
import type { OwnOptions } from "../own_llama.ts";
import type { Generated, Memory, Request } from "./llama_child.ts";
import { nativeFolder } from "./native_folder.ts";

const SCRIPT = new URL("llama_child.ts", import.meta.url).href;

/** A model that is loaded in a process of its own. */
export interface LlamaSession {
  readonly description: string;
  readonly load_ms: number;
  generate(request: Request): Promise<Generated>;
  /** The most memory there was so far. */
  memory(): Promise<Memory>;
  close(): void;
}

/** A build of llama.cpp. */
export interface LlamaPeer {
  readonly name: string;
  readonly native: boolean;
  /** Loads the GGUF file. @throws {Error} */
  load(path: string): Promise<LlamaSession>;
}

async function load(child: Child, path: string, options: OwnOptions = {}): Promise<LlamaSession> {
  try {
    const found = await child.ask<{ description: string; load_ms: number }>({ load: path, options });
    return {
      ...found,
      generate: (request) => child.ask<Generated>(request),
      memory: () => child.ask<Memory>({ memory: true }),
      close: () => child.close(),
    };
  } catch (error) {
    child.close();
    throw error;
  }
}

const inDeno = (library: string, threads: number) =>
  new Child(library, Deno.execPath(), ["run", "-A", "--quiet", "--no-lock", SCRIPT, library, `${threads}`]);

/** Our own model on so many threads, in a process of its own. */
export const own = (path: string, options: OwnOptions, threads: number): Promise<LlamaSession> =>
  load(inDeno("attune", threads), path, options);

/** wllama on so many threads. */
export const wllama = (threads: number): LlamaPeer => ({
  name: "wllama",
  native: false,
  load: (path) => load(inDeno("wllama", threads), path),
});

/** node-llama-cpp on so many threads. @throws {Error} when it cannot be installed */
export async function nodeLlamaCpp(threads: number): Promise<LlamaPeer> {
  const folder = await nativeFolder();
  const flags = ["-A", "--quiet", "--no-lock", "--no-config", "--node-modules-dir=manual"];
  return {
    name: "node-llama-cpp",
    native: true,
    load: (path) =>
      load(
        new Child(
          "node-llama-cpp",
          Deno.execPath(),
          ["run", ...flags, fileURLToPath(SCRIPT), "node-llama-cpp", `${threads}`, folder],
          { cwd: folder },
        ),
        path,
      ),
  };
}
