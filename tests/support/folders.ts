/**
 * Folders that tests write into, and what is in them.
 *
 * @module
 */

/** Runs `fn` with an empty folder, which is removed afterwards. */
export async function inFolder(fn: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Names in a folder, in order. */
export function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

/** One tensor of a safetensors file: what the header says of it, and its bytes. */
export interface FileTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The tensors of a safetensors file, by a reader of its own. */
export function tensorsIn(path: string): Map<string, FileTensor> {
  const file = Deno.readFileSync(path);
  const start = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, start))) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header).filter(([name]) => name !== "__metadata__").map((
      [name, { dtype, shape, data_offsets: [from, to] }],
    ) => [name, { dtype, shape, bytes: file.subarray(start + from, start + to) }]),
  );
}
