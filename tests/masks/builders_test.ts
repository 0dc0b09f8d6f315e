/**
 * Builders beyond the recordings: heads, is_causal, inputs of every kind, text configs, how often users are asked.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { PretrainedConfig } from "../../src/config.ts";
import { present } from "../../src/dtype.ts";
import {
  create_bidirectional_mask,
  create_causal_mask,
  create_sliding_window_causal_mask,
} from "../../src/masks/create.ts";
import { maskToString } from "../../src/masks/draw.ts";
import { eager_mask } from "../../src/masks/format_eager.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import { create_masks_for_generate } from "../../src/masks/generate.ts";
import type { AttentionMask, MaskFunction } from "../../src/masks/types.ts";
import { hostData, Tensor } from "../../src/tensor.ts";
import "./golden_run.ts"; // registers the built-in formatters

const sdpa = { _attn_implementation: "sdpa", num_attention_heads: 3 };
const embeds = { shape: [1, 4, 8], dtype: "float32" } as const;

function tensor(mask: AttentionMask | Record<string, AttentionMask>): Tensor {
  if (!(mask instanceof Tensor)) throw new Error("Expected a tensor");
  return mask;
}

Deno.test("heads: a predicate that depends on the head gives (B, H, Q, N)", () => {
  const alibiLike: MaskFunction = (_b, h, q, kv) => q - kv <= h;
  const mask = tensor(
    create_causal_mask({ config: sdpa, inputs_embeds: embeds, and_mask_function: alibiLike }),
  );
  assertEquals(mask.shape, [1, 3, 4, 4]);
  assertEquals(maskToString(mask, 4, 4, { head: 0 }).split("\n")[3], "q 2  ⬚ ⬚ ■ ⬚");
  assertEquals(maskToString(mask, 4, 4, { head: 1 }).split("\n")[3], "q 2  ⬚ ■ ■ ⬚");
  assertEquals(maskToString(mask, 4, 4, { head: 2 }).split("\n")[3], "q 2  ■ ■ ■ ⬚");
  const args = { batch_size: 1, q_length: 4, kv_length: 4, mask_function: alibiLike, config: sdpa };
  const eager = tensor(eager_mask(args));
  const bool = tensor(sdpa_mask({ ...args, allow_is_causal_skip: false }));
  assertEquals(eager.shape, [1, 3, 4, 4]);
  const visible = Array.from(present(eager.dtype, hostData(eager)), Number).map((v) => v === 0 ? 1 : 0);
  assertEquals(visible, Array.from(hostData(bool), Number));
});

Deno.test("heads: a predicate that ignores the head gives one", () => {
  const mask = create_causal_mask({
    config: sdpa,
    inputs_embeds: embeds,
    or_mask_function: (_b, _h, _q, kv) => kv < 2,
  });
  assertEquals(tensor(mask).shape, [1, 1, 4, 4]);
});

Deno.test("calls: an opaque predicate is asked only where built-in ones leave room", () => {
  const asked: string[] = [];
  const spy: MaskFunction = (_b, _h, q, kv) => {
    asked.push(`${q},${kv}`);
    return true;
  };
  const config = { _attn_implementation: "sdpa" };
  create_causal_mask({
    config,
    inputs_embeds: embeds,
    attention_mask: [[0, 1, 1, 1]],
    and_mask_function: spy,
  });
  assertEquals(asked, ["1,1", "2,1", "2,2", "3,1", "3,2", "3,3"]);
  asked.length = 0;
  create_causal_mask({
    config,
    inputs_embeds: embeds,
    attention_mask: [[0, 1, 1, 1]],
    or_mask_function: spy,
  });
  assertEquals(asked, ["0,1", "0,2", "0,3", "1,2", "1,3", "2,3"]);
});

Deno.test("is_causal: the argument wins over the config, and encoders ignore both", () => {
  const none = { config: { ...sdpa, is_causal: false }, inputs_embeds: embeds, allow_is_causal_skip: false };
  const all = "q 0  ■ ■ ■ ■", own = "q 0  ■ ⬚ ⬚ ⬚";
  const first = (mask: AttentionMask): string => maskToString(tensor(mask)).split("\n")[1]!;
  assertEquals(first(create_causal_mask(none)), all);
  assertEquals(first(create_causal_mask({ ...none, is_causal: true })), own);
  const causal = { ...none, config: { ...sdpa, is_causal: true } };
  assertEquals(first(create_causal_mask(causal)), own);
  assertEquals(first(create_causal_mask({ ...causal, is_causal: false })), all);
  const { allow_is_causal_skip: _, ...encoder } = causal;
  assertEquals(first(create_bidirectional_mask({ ...encoder, allow_is_bidirectional_skip: false })), all);
});

Deno.test("is_causal: false keeps packing and drops block ids", () => {
  const args = { config: { ...sdpa, is_causal: false }, inputs_embeds: embeds, position_ids: [[0, 1, 0, 1]] };
  const mask = tensor(create_causal_mask({ ...args, block_sequence_ids: [[0, 0, 0, 0]] }));
  assertEquals(maskToString(mask).split("\n").slice(1), [
    "q 0  ■ ■ ⬚ ⬚",
    "q 1  ■ ■ ⬚ ⬚",
    "q 2  ⬚ ⬚ ■ ■",
    "q 3  ⬚ ⬚ ■ ■",
  ]);
  const flash = { ...args.config, _attn_implementation: "flash_attention_2" };
  assertEquals(create_causal_mask({ ...args, config: flash, block_sequence_ids: [[0, 0, 0, 0]] }), null);
});

Deno.test("inputs: tensors of any dtype, views and nested arrays mean the same", () => {
  const rows = [[0, 1, 1, 1], [1, 1, 0, 1]];
  const inputs_embeds = { shape: [2, 4, 8], dtype: "float16" } as const;
  const draw = (attention_mask: Tensor | (number | boolean)[][]): string =>
    maskToString(tensor(create_causal_mask({ config: sdpa, inputs_embeds, attention_mask })), 4, 4, {
      batch: 1,
    });
  const expected = draw(rows);
  for (const dtype of ["bool", "int32", "int64", "uint8", "float32", "float16", "bfloat16"] as const) {
    assertEquals(draw(Tensor.from(rows, { dtype })), expected, dtype);
  }
  assertEquals(draw(rows.map((r) => r.map(Boolean))), expected);
  const wide = Tensor.from(rows.map((r) => [...r, 9, 9]), { dtype: "int64" });
  assertEquals(draw(wide.view([2, 4], [6, 1])), expected);
});

Deno.test("inputs: a mask shorter than the keys is extended with false", () => {
  const args = { config: sdpa, inputs_embeds: embeds, attention_mask: [[1, 1, 1]] };
  assertEquals(maskToString(tensor(create_bidirectional_mask(args))).split("\n")[1], "q 0  ■ ■ ■ ⬚");
  const flash = { _attn_implementation: "flash_attention_2" };
  assertEquals(Array.from(hostData(tensor(create_causal_mask({ ...args, config: flash }))), Number), [
    1,
    1,
    1,
    0,
  ]);
});

Deno.test("inputs: masks are made for the device of the embeddings", () => {
  for (const name of ["sdpa", "eager", "flash_attention_2"]) {
    const mask = create_causal_mask({
      config: { _attn_implementation: name },
      inputs_embeds: { ...embeds, device: "webgpu" },
      attention_mask: [[0, 1, 1, 1]],
    });
    assertEquals(tensor(mask).device, "webgpu");
  }
});

Deno.test("generate: a multi-modal config is asked for its text part", () => {
  const config = new PretrainedConfig({
    model_type: "llava",
    vision_config: { hidden_size: 8 },
    text_config: { hidden_size: 8, sliding_window: 2, layer_types: ["full_attention", "sliding_attention"] },
  }, { attn_implementation: "sdpa" });
  const made = create_masks_for_generate({ config, inputs_embeds: embeds }) as Record<string, AttentionMask>;
  assertEquals(Object.keys(made), ["full_attention", "sliding_attention"]);
  assertEquals(made.full_attention, null);
  const sliding = create_sliding_window_causal_mask({
    config: config.sub_configs.text_config!,
    inputs_embeds: embeds,
  });
  assertEquals(maskToString(tensor(made.sliding_attention!)), maskToString(tensor(sliding)));
});

Deno.test("generate: recurrent layers get the last columns in the caller's dtype, or nothing", () => {
  const config = { ...sdpa, layer_types: ["conv"] };
  const recurrent = (attention_mask: Tensor | null, q = 2): AttentionMask =>
    (create_masks_for_generate({ config, inputs_embeds: { shape: [1, q, 8] }, attention_mask }) as Record<
      string,
      AttentionMask
    >).conv!;
  const mask = tensor(recurrent(Tensor.from([[0, 1, 0, 1]], { dtype: "uint8" })));
  assertEquals([mask.dtype, mask.shape, Array.from(hostData(mask), Number)], ["uint8", [1, 2], [0, 1]]);
  assertEquals(recurrent(Tensor.from([[1, 1]])), null);
  assertEquals(recurrent(Tensor.from([[0, 1]]), 1), null);
  assertEquals(recurrent(null), null);
});
