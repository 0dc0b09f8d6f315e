/**
 * `flex_attention` under block masks: the numbers of the dense mask, hidden blocks that are never read, memory that does
 * not grow with Q × K, and what it refuses.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  attention,
  create_block_mask,
  type MaskFunction,
  sliding_window_causal_mask_function,
  Tensor,
} from "../../mod.ts";
import { flex_attention_forward } from "../../src/attention/flex.ts";
import { defaultDevice } from "../../src/devices/mod.ts";
import { AttentionRefused, InvalidArgument } from "../../src/errors.ts";
import type { BlockMask } from "../../src/masks/block_mask.ts";
import { liveTest } from "../models/support.ts";
import { type BlockCase, randomBlockMask } from "../support/block_cases.ts";
import fc from "../support/fast_check.ts";
import { seeded } from "../support/random.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";

/** Query, key and value. */
interface Operands extends Disposable {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

const TILE = 64;

function operands({ B, H, Hkv, Q, K, D }: Readonly<Record<string, number>>, seed: string): Operands {
  const random = seeded(seed);
  const make = (shape: number[]) => Tensor.from(random.normal(shape.reduce((a, b) => a * b, 1)), { shape });
  const [q, k, v] = [make([B!, H!, Q!, D!]), make([B!, Hkv!, K!, D!]), make([B!, Hkv!, K!, D!])];
  return {
    q,
    k,
    v,
    [Symbol.dispose]: () => [q, k, v].forEach((t) => t[Symbol.dispose]()),
  };
}

/** Output, log-sum-exp and weights under a mask. */
async function attend(
  { q, k, v }: Operands,
  mask: BlockMask | Tensor | null,
  more: object = {},
): Promise<Float32Array[]> {
  const options = { attn_implementation: "flex_attention", attention_mask: mask, return_lse: true, ...more };
  const { attn_output, lse, attn_weights } = await attention(q, k, v, options);
  using output = attn_output;
  using sums = lse!;
  using weights = attn_weights;
  const parts = [output, sums, ...(weights === null ? [] : [weights])];
  return await Promise.all(parts.map(async (t) => Float32Array.from(await t.data() as Float32Array)));
}

const sizes = fc.record({
  B: fc.integer({ min: 1, max: 2 }),
  Hkv: fc.integer({ min: 1, max: 2 }),
  groups: fc.integer({ min: 1, max: 3 }),
  Q: fc.constantFrom(1, 2, 5, 8, 31, 70, 130),
  K: fc.constantFrom(1, 40, 64, 100, 128, 300),
  D: fc.constantFrom(4, 12, 16),
});
const side = fc.oneof(fc.constantFrom(64, 128, 192), fc.integer({ min: 1, max: 200 }));

liveTest(
  "property: a block mask gives what the dense mask gives, bit by bit where its edges are the tiles'",
  async () => {
    await fc.assert(
      fc.asyncProperty(
        sizes,
        fc.tuple(side, side),
        fc.tuple(fc.constantFrom("B" as const, 1 as const), fc.constantFrom("H" as const, 1 as const)),
        fc.record({ softcap: fc.constantFrom(undefined, 5), output_attentions: fc.boolean() }),
        fc.nat(),
        async ({ groups, ...rest }, size, stored, { softcap, ...more }, seed) => {
          const shape = { ...rest, H: rest.Hkv * groups };
          using inputs = operands(shape, String(seed));
          using mask = randomBlockMask({ size, stored, masked_rows: [3] }, shape, seeded(seed));
          using dense = mask.to_dense();
          const options = softcap === undefined ? more : { ...more, softcap };
          const [ours, theirs] = [await attend(inputs, mask, options), await attend(inputs, dense, options)];
          assertEquals(ours.length, more.output_attentions ? 3 : 2);
          ours.forEach((part, i) => {
            // The second pass for the weights has no tiles.
            if (i === 2 || size[1] % TILE === 0 || size[1] >= shape.K) assertSameBits(part, theirs[i]!);
            else assertClose(part, theirs[i]!, toleranceOf("attention_flash", "wasm"), `part ${i}`);
          });
        },
      ),
      { seed: 7, numRuns: 150 },
    );
  },
);

liveTest("a row has the same bits whatever the other rows see", async () => {
  const shape = { B: 1, H: 2, Hkv: 1, D: 16, K: 200 };
  const hash = (...at: number[]) => seeded(String(at)).next();
  for (const Q of [5, 40]) {
    using inputs = operands({ ...shape, Q }, "rows");
    for (const [bq, bk] of [[1, 24], [3, 50], [8, 10], [16, 64]] as const) {
      const see = (other: number): MaskFunction => (_b, h, q, kv) => {
        const block = hash(
          q === 4 ? 0 : other,
          h,
          Math.floor(q / bq) === Math.floor(4 / bq) ? 4 : q,
          Math.floor(kv / bk),
        );
        return block > 0.5 && (block > 0.8 || hash(q === 4 ? 0 : other, q, kv) > 0.5);
      };
      const rows = await Promise.all([1, 2, 3].map(async (other) => {
        using mask = create_block_mask(see(other), null, 2, Q, shape.K, { BLOCK_SIZE: [bq, bk] });
        const [output] = await attend(inputs, mask);
        return output!.slice(4 * 2 * 16, 5 * 2 * 16);
      }));
      assert(rows[0]!.some((x) => x !== 0));
      for (const row of rows.slice(1)) assertSameBits(row, rows[0]!, `Q ${Q}, blocks ${bq} × ${bk}`);
    }
  }
});

liveTest("keys and values of hidden blocks are not read", async () => {
  for (
    const [Q, size] of [[96, [32, 40]], [96, [64, 128]], [300, [128, 128]], [3, [8, 24]], [1, [
      1,
      7,
    ]]] as const
  ) {
    const K = 520, [, bk] = size;
    const hidden = (kv: number) => Math.floor(kv / bk) % 3 !== 1;
    const see: MaskFunction = (_b, _h, q, kv) => !hidden(kv) && (q + kv) % 5 !== 0;
    const random = seeded("nan");
    const filled = (n: number, spoil: boolean) =>
      Tensor.from(
        random.normal(2 * n * 16).map((x, i) => spoil && hidden(Math.floor(i / 16) % n) ? NaN : x),
        {
          shape: [1, 2, n, 16],
        },
      );
    using q = filled(Q, false);
    using k = filled(K, true);
    using v = filled(K, true);
    using mask = create_block_mask(see, null, null, Q, K, { BLOCK_SIZE: size });
    const parts = await attend({ q, k, v, [Symbol.dispose]() {} }, mask);
    for (const part of parts) assert(part.every(Number.isFinite), `${Q} queries, blocks of ${size}`);
    // Without the mask they are read.
    const [spoilt] = await attend({ q, k, v, [Symbol.dispose]() {} }, null);
    assert(spoilt!.some(Number.isNaN));
  }
});

liveTest("a row of blocks without an entry gives zeros, and its log-sum-exp is −∞", async () => {
  using inputs = operands({ B: 1, H: 1, Hkv: 1, Q: 40, K: 40, D: 8 }, "empty");
  using mask = create_block_mask((_b, _h, q) => q >= 16, null, null, 40, 40, { BLOCK_SIZE: 16 });
  const [output, lse] = await attend(inputs, mask);
  assert(output!.subarray(0, 16 * 8).every((x) => x === 0));
  assert(lse!.subarray(0, 16).every((x) => x === -Infinity));
  assert(lse!.subarray(16).every(Number.isFinite));
});

liveTest("a block mask takes memory by its visible blocks, not by Q × K", async () => {
  const held = async (S: number) => {
    using inputs = operands({ B: 1, H: 1, Hkv: 1, Q: S, K: S, D: 4 }, "memory");
    using mask = create_block_mask(sliding_window_causal_mask_function(200), null, null, S, S);
    const device = defaultDevice("wasm");
    for (const t of [inputs.q, inputs.k, inputs.v]) t.on(device);
    const before = device.bytes;
    await attend(inputs, mask);
    return device.bytes - before;
  };
  const [small, large] = [await held(2048), await held(8192)];
  assert(small > 0 && small < 2048 * 2048 / 16, `${small} bytes`);
  // Four times the length: four times the blocks, where a dense mask takes sixteen times the bytes.
  assert(large < 4.5 * small, `${large} bytes after ${small}`);
  assert(defaultDevice("wasm").peak < 8192 * 8192, `peak ${defaultDevice("wasm").peak}`);
});

liveTest("position_bias and a block mask hold together", async () => {
  const [Q, K] = [20, 150];
  using inputs = operands({ B: 1, H: 2, Hkv: 2, Q, K, D: 8 }, "bias");
  const blocks: BlockCase = { size: [8, 64] };
  using mask = randomBlockMask(blocks, { B: 1, H: 2, Q, K }, seeded(5));
  using dense = mask.to_dense();
  using position_bias = Tensor.from(seeded(6).normal(2 * Q * K), { shape: [1, 2, Q, K] });
  const module = {
    scaling: 0.3,
    is_causal: false,
    layer_idx: 0,
    num_key_value_groups: 1,
    config: null as never,
  };
  const run = async (m: BlockMask | Tensor) => {
    const [output] = flex_attention_forward(module, inputs.q, inputs.k, inputs.v, m, { position_bias });
    using held = output;
    return await held.data() as Float32Array;
  };
  assertSameBits(await run(mask), await run(dense));
});

liveTest("a mask_function's blocks are given back with the call", async () => {
  using inputs = operands({ B: 1, H: 1, Hkv: 1, Q: 20, K: 20, D: 4 }, "own");
  const { attn_output } = await attention(inputs.q, inputs.k, inputs.v, {
    attn_implementation: "flex_attention",
    mask_function: (_b, _h, q, kv) => kv <= q,
  });
  using output = attn_output;
  assertEquals((await output.data()).length, 80);
});

liveTest("flex_attention refuses a mask for other lengths, a disposed one and a score_mod", async () => {
  using inputs = operands({ B: 2, H: 2, Hkv: 1, Q: 6, K: 9, D: 4 }, "refused");
  const see: MaskFunction = (_b, _h, q, kv) => kv <= q;
  for (const [B, H, Q, K] of [[3, 1, 6, 9], [1, 4, 6, 9], [1, 1, 5, 9], [1, 1, 6, 10]] as const) {
    using mask = create_block_mask(see, B, H, Q, K);
    await assertRejects(() => attend(inputs, mask), InvalidArgument, `block mask of shape [${[B, H, Q, K]}]`);
  }
  const gone = create_block_mask(see, null, null, 6, 9);
  gone[Symbol.dispose]();
  await assertRejects(() => attend(inputs, gone), InvalidArgument, "disposed");
  using mask = create_block_mask(see, null, null, 6, 9);
  const score_mod = (score: number) => score;
  await assertRejects(() => attend(inputs, mask, { score_mod }), InvalidArgument, "score_mod");
  const module = {
    scaling: 1,
    is_causal: false,
    layer_idx: 0,
    num_key_value_groups: 2,
    config: null as never,
  };
  await assertRejects(
    // deno-lint-ignore require-await
    async () => flex_attention_forward(module, inputs.q, inputs.k, inputs.v, mask, { score_mod }),
    AttentionRefused,
    "score_mod",
  );
});
