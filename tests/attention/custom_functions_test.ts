/**
 * Attention that a user writes on public operations alone: sigmoid attention and differential attention, each a
 * short function that runs unchanged on every device, with grouped heads, padding and a cache, against an oracle
 * written here.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  attention,
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  AutoModelForCausalLM,
  eager_mask,
  ops,
  sdpa_mask,
  Tensor,
} from "../../mod.ts";
import { seeded } from "../support/random.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";
import { everywhere, ids, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";

/** Sigmoid attention (Ramapuram et al. 2024): σ(q·k·scaling − log K) instead of softmax. */
const sigmoidAttention: AttentionFunction = (module, query, key, value, attention_mask, kwargs) => {
  const groups = query.shape[1]! / key.shape[1]!;
  const scores = ops.matmul(query, ops.repeat_kv(key, groups), { transpose_b: true });
  const scaled = ops.mul(scores, kwargs.scaling ?? module.scaling);
  const gates = ops.sigmoid(ops.sub(scaled, Math.log(key.shape[2]!)));
  const weights = attention_mask === null ? gates : ops.where(attention_mask as Tensor, gates, 0);
  return [ops.permute(ops.matmul(weights, ops.repeat_kv(value, groups)), [0, 2, 1, 3]), weights];
};

const LAMBDA = 0.3;

/** Differential attention (Ye et al. 2024, arXiv 2410.05258) with a fixed λ: halves of q and k make two softmaxes. */
const differentialAttention: AttentionFunction = (_module, query, key, value, attention_mask) => {
  const groups = query.shape[1]! / key.shape[1]!;
  const half = query.shape[3]! / 2;
  const [keys, values] = [ops.repeat_kv(key, groups), ops.repeat_kv(value, groups)];
  const weightsOf = (at: number) => {
    const [q, k] = [query, keys].map((t) => ops.slice(t, 3, at, at + half)) as [Tensor, Tensor];
    const scores = ops.mul(ops.matmul(q, k, { transpose_b: true }), half ** -0.5);
    return ops.softmax(attention_mask === null ? scores : ops.add(scores, attention_mask as Tensor));
  };
  const weights = ops.sub(weightsOf(0), ops.mul(weightsOf(half), LAMBDA));
  return [ops.permute(ops.matmul(weights, values), [0, 2, 1, 3]), weights];
};

AttentionInterface.register("sigmoid", sigmoidAttention);
AttentionMaskInterface.register("sigmoid", (args) => sdpa_mask({ ...args, allow_is_causal_skip: false }));
AttentionInterface.register("differential", differentialAttention);
AttentionMaskInterface.register("differential", eager_mask);

Deno.test("the functions above are short: at most 30 lines", () => {
  for (const fn of [sigmoidAttention, differentialAttention]) {
    assert(String(fn).split("\n").length <= 30);
  }
});

/** Weights of one query row from its scores over the visible keys, in float64. */
type Rule = (q: Float64Array, keys: Float64Array[], visible: boolean[]) => number[];

const dot = (a: Float64Array, b: Float64Array) => a.reduce((s, x, i) => s + x * b[i]!, 0);

function softmaxOf(scores: number[], visible: boolean[]): number[] {
  const top = Math.max(...scores.filter((_, i) => visible[i]));
  const exps = scores.map((s, i) => visible[i] ? Math.exp(s - top) : 0),
    sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((e) => e / sum);
}

const RULES: Readonly<Record<string, Rule>> = {
  sigmoid: (q, keys, visible) =>
    keys.map((k, i) =>
      visible[i] ? 1 / (1 + Math.exp(-(dot(q, k) * q.length ** -0.5 - Math.log(keys.length)))) : 0
    ),
  differential: (q, keys, visible) => {
    const half = q.length / 2;
    const part = (at: number) =>
      softmaxOf(
        keys.map((k) => dot(q.subarray(at, at + half), k.subarray(at, at + half)) * half ** -0.5),
        visible,
      );
    const [first, second] = [part(0), part(half)];
    return first.map((w, i) => w - LAMBDA * second[i]!);
  },
};

const SIZES = [
  { B: 1, H: 2, Hkv: 2, Q: 5, K: 5, D: 8 },
  { B: 2, H: 4, Hkv: 2, Q: 7, K: 7, D: 8 },
  { B: 2, H: 6, Hkv: 2, Q: 1, K: 20, D: 16 },
  { B: 2, H: 4, Hkv: 1, Q: 3, K: 9, D: 4 },
];

for (const [name, rule] of Object.entries(RULES)) {
  for (const { B, H, Hkv, Q, K, D } of SIZES) {
    everywhere(
      `${name} attention agrees with its oracle: ${H} heads over ${Hkv}, ${Q} queries, ${K} keys, padded`,
      async (device) => {
        const random = seeded(`${name} ${H} ${Q} ${K}`);
        const make = (heads: number, n: number) => ({
          shape: [B, heads, n, D],
          data: random.normal(B * heads * n * D),
        });
        const [q, k, v] = [make(H, Q), make(Hkv, K), make(Hkv, K)];
        // The second row of the batch has 2 padded keys on its left.
        const see = (b: number, i: number, j: number) => j <= i + K - Q && j >= 2 * b;
        const expected = new Float64Array(B * Q * H * D), compared = new Uint8Array(expected.length);
        for (let b = 0; b < B; b++) {
          for (let h = 0; h < H; h++) {
            const vector = ({ data, shape: [, heads, n] }: typeof q, head: number, i: number) =>
              Float64Array.from(
                data.subarray(((b * heads! + head) * n! + i) * D, ((b * heads! + head) * n! + i + 1) * D),
              );
            const kv = Math.floor(h / (H / Hkv));
            const keys = Array.from({ length: K }, (_, j) => vector(k, kv, j));
            for (let i = 0; i < Q; i++) {
              const visible = keys.map((_, j) => see(b, i, j));
              // What a padded query gives is not defined here: an additive mask makes it an average.
              if (!visible.includes(true)) continue;
              compared.fill(1, ((b * Q + i) * H + h) * D, ((b * Q + i) * H + h + 1) * D);
              rule(vector(q, h, i), keys, visible).forEach((w, j) => {
                vector(v, kv, j).forEach((x, d) => expected[((b * Q + i) * H + h) * D + d]! += w * x);
              });
            }
          }
        }
        using owned = new DisposableStack();
        const [query, key, value] = [q, k, v].map(({ data, shape }) =>
          owned.use(Tensor.from(data, { shape, device }))
        );
        const { attn_output, attn_weights } = await attention(query!, key!, value!, {
          attn_implementation: name,
          mask_function: (b, _h, i, j) => see(b, i, j),
        });
        owned.use(attn_output);
        assertEquals(attn_weights?.shape, [B, H, Q, K]);
        owned.use(attn_weights!);
        const output = await attn_output.data() as Float32Array;
        const defined = <T extends Float32Array | Float64Array>(xs: T) =>
          xs.filter((_, at) => compared[at] === 1);
        assertClose(defined(output), defined(expected), toleranceOf("attention_eager", device), name);
      },
    );
  }
}

everywhere("a model generates with them: padded batches as alone, a cache as without one", async (device) => {
  const long = [3, 41, 19, 10, 47, 6, 12, 36], short = [21, 6, 49, 10, 35];
  for (const name of Object.keys(RULES)) {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, {
      attn_implementation: name,
      device,
    });
    const run = async (rows: number[][], mask?: number[][]) => {
      using input_ids = ids(rows);
      using attention_mask = mask === undefined ? null : Tensor.from(mask);
      const options = { input_ids, max_new_tokens: 6, ...(attention_mask ? { attention_mask } : {}) };
      return (await rowsOf(await model.generate(options))).map((row) => row.slice(rows[0]!.length));
    };
    const alone = [(await run([long]))[0]!, name === "sigmoid" ? null : (await run([short]))[0]!];
    const gap = long.length - short.length;
    const padded = await run(
      [long, [...Array<number>(gap).fill(0), ...short]],
      [long.map(() => 1), [...Array<number>(gap).fill(0), ...short.map(() => 1)]],
    );
    assertEquals(padded[0], alone[0], name);
    // Sigmoid attention normalises by the number of keys, padding included: its padded row differs by design.
    if (alone[1] !== null) assertEquals(padded[1], alone[1], name);
    // The same tokens step by step, each from a forward over everything.
    const row = [...long];
    for (let step = 0; step < 6; step++) {
      using input_ids = ids([row]);
      const { logits } = await model.forward({ input_ids, use_cache: false, logits_to_keep: 1 });
      using best = ops.argmax(logits!);
      logits![Symbol.dispose]();
      row.push((await best.tolist() as number[][])[0]![0]!);
    }
    assertEquals(row.slice(long.length), alone[0]!, `${name} without a cache`);
  }
});

reportSkipped();
