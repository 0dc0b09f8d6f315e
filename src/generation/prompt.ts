/**
 * Prompts as rows of tokens, and the masks of padded ones.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { Settings } from "./settings.ts";

/** Rows of a tensor (B, N) of integers. */
export function rowsOf(t: Tensor): number[][] {
  const [batch, length] = t.shape as [number, number];
  const host = hostData(t);
  return Array.from(
    { length: batch },
    (_, b) => Array.from(host.subarray(b * length, (b + 1) * length), Number),
  );
}

/** Masks and positions of padded prompts, growing by a real token a step. */
export class PromptMask {
  /** One row of 0 and 1 a prompt. */
  constructor(readonly rows: readonly (readonly number[])[]) {}

  /** First real token of a prompt. */
  start(prompt: number): number {
    return this.rows[prompt]!.indexOf(1);
  }

  /**
   * For tokens `from…total` of rows which continue `prompts`: the mask of everything so far (B, total), and the tokens'
   * positions (B, total − from).
   */
  tensors(
    prompts: readonly number[],
    from: number,
    total: number,
  ): { attention_mask: Tensor; position_ids: Tensor } & Disposable {
    const full = prompts.map((p) => {
      const row = this.rows[p]!;
      return [...row, ...new Array<number>(total - row.length).fill(1)];
    });
    const positions = full.map((row) => {
      let real = 0;
      // Positions count real tokens; padding sits at 0.
      return row.map((m) => m === 1 ? real++ : 0).slice(from);
    });
    const attention_mask = Tensor.from(full, { dtype: "int32" });
    const position_ids = Tensor.from(positions, { dtype: "int32" });
    return {
      attention_mask,
      position_ids,
      [Symbol.dispose]() {
        attention_mask[Symbol.dispose]();
        position_ids[Symbol.dispose]();
      },
    };
  }
}

/**
 * The mask given, else one that hides the padding token where it can only be padding; null when nothing is padded.
 *
 * @throws {InvalidArgument} for a mask that does not fit, or padding behind a prompt
 */
export function promptMask(
  attention_mask: unknown,
  prompt: readonly (readonly number[])[],
  { eos, prompt_pad }: Pick<Settings, "eos" | "prompt_pad">,
): PromptMask | null {
  const batch = prompt.length, length = prompt[0]!.length;
  let rows: number[][];
  if (attention_mask !== undefined && attention_mask !== null) {
    if (
      !(attention_mask instanceof Tensor) || attention_mask.shape.length !== 2 ||
      attention_mask.shape[0] !== batch || attention_mask.shape[1] !== length
    ) {
      const got = attention_mask instanceof Tensor
        ? `shape [${attention_mask.shape}]`
        : typeof attention_mask;
      throw new InvalidArgument(
        `Cannot generate with an attention_mask of ${got}: expected (B, N) = [${batch},${length}]`,
      );
    }
    rows = rowsOf(attention_mask);
    const odd = rows.flat().find((m) => m !== 0 && m !== 1);
    if (odd !== undefined) {
      throw new InvalidArgument(`Cannot generate with ${odd} in the attention_mask: expected 0 and 1`);
    }
  } else {
    const hides = prompt_pad !== null && !eos.includes(prompt_pad);
    rows = prompt.map((row) => row.map((id) => hides && id === prompt_pad ? 0 : 1));
  }
  if (rows.every((row) => row.every((m) => m === 1))) return null;
  const ragged = rows.findIndex((row) => row[length - 1] === 0);
  if (ragged >= 0) {
    throw new InvalidArgument(
      `Cannot generate after padding: row ${ragged} ends with it. Pad prompts on the left (tokenizer(texts, { padding: true, padding_side: "left" }))`,
    );
  }
  return new PromptMask(rows);
}
