/**
 * Paged attention: the recorded packed masks, and every implementation against the oracle, request by request, on
 * its own and inside a model.
 *
 * @module
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  attention,
  type AttentionKwargs,
  type AttentionModule,
  AutoModelForCausalLM,
  type BuiltinAttention,
  type DeviceName,
  DynamicCache,
  eager_mask,
  eager_paged_attention_forward,
  flash_attention_forward,
  flash_paged_attention_forward,
  InvalidArgument,
  ops,
  paged_mask_function,
  type PagedCache,
  PretrainedConfig,
  sdpa_paged_attention_forward,
  Tensor,
} from "../../mod.ts";
import { reference_attention } from "../../src/attention/reference.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped } from "../models/support.ts";
import { goldenCases, goldenPath, goldenTensor } from "../support/golden.ts";
import { seeded } from "../support/random.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";

const masks = goldenCases("paged", "packed_mask");

liveTest(`golden paged: ${masks.length} packed masks`, async () => {
  for (const { id, params, expect } of masks) {
    const { cu_seq_lens_q: q, cu_seq_lens_k: k } = params as unknown as Record<string, number[]>;
    const mask = eager_mask({
      batch_size: 1,
      q_length: q!.at(-1)!,
      kv_length: k!.at(-1)!,
      mask_function: paged_mask_function(q!, k!, params.sliding_window as number | null),
    });
    using tensor = mask as Tensor;
    const { shape, keep } = expect as { shape: number[]; keep: never };
    assertEquals(tensor.shape, shape, id);
    const visible = Array.from(await tensor.data() as Float32Array, (x) => x === 0 ? 1 : 0);
    assertEquals(visible, Array.from(goldenTensor(keep).data), id);
  }
});

const FUNCTIONS: Readonly<Record<string, BuiltinAttention>> = {
  "paged|eager": eager_paged_attention_forward,
  "paged|sdpa": sdpa_paged_attention_forward,
  "paged|flash_attention_2": flash_paged_attention_forward,
};

const [H, HKV, D] = [4, 2, 8];
/** Requests with queries and keys; the first is a prefill, the last a decode step. */
const Q = [0, 3, 5, 6], K = [0, 3, 9, 16];
const module: AttentionModule = {
  config: new PretrainedConfig({}),
  layer_idx: 3,
  is_causal: true,
  scaling: D ** -0.5,
  num_key_value_groups: H / HKV,
};

/** A cache that already knows everything, and what it was asked. */
function cacheOf(key: Tensor, value: Tensor) {
  const asked: unknown[] = [];
  const cache: PagedCache = {
    update(new_keys, _values, layer_idx, { read_index, write_index, block_table }) {
      asked.push([new_keys.shape, layer_idx, read_index, write_index, block_table]);
      return [ops.slice(key, 2, 0), ops.slice(value, 2, 0)];
    },
  };
  return { cache, asked };
}

interface Extra {
  readonly sliding_window?: number;
  readonly softcap?: number;
  readonly sinks?: readonly number[];
}

/** The oracle, request by request: each is plain causal attention aligned to its last key. */
function expected(q: Float32Array, k: Float32Array, v: Float32Array, extra: Extra): Float32Array {
  const out = new Float32Array(Q.at(-1)! * H * D);
  for (let r = 0; r + 1 < Q.length; r++) {
    const part = (x: Float32Array, heads: number, n: number, from: number, to: number) => ({
      data: Float32Array.from(
        { length: heads * (to - from) * D },
        (_, i) => x[(Math.floor(i / (D * (to - from))) * n + from) * D + i % (D * (to - from))]!,
      ),
      shape: [1, heads, to - from, D],
    });
    const { output } = reference_attention({
      query: part(q, H, Q.at(-1)!, Q[r]!, Q[r + 1]!),
      key: part(k, HKV, K.at(-1)!, K[r]!, K[r + 1]!),
      value: part(v, HKV, K.at(-1)!, K[r]!, K[r + 1]!),
      is_causal: true,
      sliding_window: extra.sliding_window ?? null,
      softcap: extra.softcap ?? null,
      sinks: extra.sinks === undefined ? null : { data: extra.sinks, shape: [H] },
    });
    out.set(output, Q[r]! * H * D);
  }
  return out;
}

const random = seeded("paged");
const [q, k, v] = [H * 6, HKV * 16, HKV * 16].map((n) => random.normal(n * D)) as [
  Float32Array,
  Float32Array,
  Float32Array,
];
const EXTRAS: readonly Extra[] = [
  {},
  { sliding_window: 2 },
  { softcap: 1.5 },
  { sinks: [0.5, -1, 2, 0] },
  { sliding_window: 3, softcap: 2, sinks: [1, 1, 0, -2] },
];

/** Operands on a device, and keyword arguments with a cache of pages. */
function operands(device: DeviceName, owned: DisposableStack) {
  const place = (data: Float32Array, heads: number, n: number) =>
    owned.use(Tensor.from(data, { shape: [1, heads, n, D], device }));
  const [query, key, value] = [place(q, H, 6), place(k, HKV, 16), place(v, HKV, 16)];
  const [newKey, newValue] = [key, value].map((t) => owned.use(ops.slice(t, 2, 0, 6))) as [Tensor, Tensor];
  return { query, newKey, newValue, ...cacheOf(key, value) };
}

for (const [name, fn] of Object.entries(FUNCTIONS)) {
  for (const extra of EXTRAS) {
    everywhere(
      `${name} gives each request what the oracle gives: ${JSON.stringify(extra)}`,
      async (device) => {
        using owned = new DisposableStack();
        const { query, newKey, newValue, cache, asked } = operands(device, owned);
        const { sinks, ...rest } = extra;
        const kwargs: AttentionKwargs = {
          cache,
          read_index: [[0]],
          write_index: [[1]],
          ...rest,
          ...(sinks === undefined
            ? {}
            : { s_aux: owned.use(Tensor.from([...sinks], { dtype: "float32", device })) }),
        };
        const limits = {
          cu_seq_lens_q: owned.use(Tensor.from(Q, { dtype: "int32" })),
          cu_seq_lens_k: { full_attention: K, sliding_attention: K },
          max_length_q: 3,
          max_length_k: 7,
        };
        const window = extra.sliding_window ?? null;
        const packed = name.includes("flash") ? null : owned.use(eager_mask({
          batch_size: 1,
          q_length: 6,
          kv_length: 16,
          mask_function: paged_mask_function(Q, K, window),
          device,
        }) as Tensor);
        const wanted = expected(q, k, v, extra);
        // With the packed mask, as continuous batching gives it, and told apart by the limits alone.
        for (const mask of new Set([packed, null])) {
          const [output, weights] = fn(module, query, newKey, newValue, mask, {
            ...kwargs,
            ...limits,
            output_attentions: true,
          });
          owned.use(output);
          const rows = owned.use(weights!);
          assertEquals(output.shape, [1, 6, H, D]);
          assertEquals(rows.shape, [1, H, 6, 16]);
          assertClose(await output.data() as Float32Array, wanted, toleranceOf("attention_flash", device));
          const sums = Array.from({ length: H * 6 }, () => 0);
          (await rows.data() as Float32Array).forEach((x, i) => sums[Math.floor(i / 16)]! += x);
          if (sinks === undefined) {
            assertClose(
              sums,
              sums.map(() => 1),
              toleranceOf("attention_flash", device),
            );
          }
        }
        assertEquals(asked[0], [[1, HKV, 6, D], 3, [[0]], [[1]], undefined]);
      },
    );
  }

  liveTest(`${name} refuses what it cannot compute`, () => {
    using owned = new DisposableStack();
    const { query, newKey, newValue, cache } = operands("wasm", owned);
    const refused = (kwargs: AttentionKwargs, word: string) =>
      assertThrows(() => fn(module, query, newKey, newValue, null, kwargs), InvalidArgument, word);
    refused({}, "without a cache");
    refused({ cache: null }, name.split("_2")[0]!);
    refused({ cache: 7 }, "cache of number");
    refused({ cache: { update: () => null } }, "expected [keys, values]");
    refused({ cache, cu_seq_lens_q: Q }, "cu_seq_lens_k");
    refused({ cache, cu_seq_lens_q: [0, 4, 2, 6], cu_seq_lens_k: K }, "count up");
    refused({ cache, cu_seq_lens_q: [0, 6], cu_seq_lens_k: K }, "equally many");
    refused({ cache, cu_seq_lens_q: [0, 7], cu_seq_lens_k: [0, 16] }, "6 queries");
    refused({ cache, cu_seq_lens_q: Q, cu_seq_lens_k: K, dropout: 0.1 }, "dropout");
  });
}

liveTest("paged|flash takes no mask", () => {
  using owned = new DisposableStack();
  const { query, newKey, newValue, cache } = operands("wasm", owned);
  const mask = owned.use(ops.zeros([1, 1, 6, 16]));
  const call = () => flash_paged_attention_forward(module, query, newKey, newValue, mask, { cache });
  assertThrows(call, InvalidArgument, "with a mask");
});

everywhere("flash without a cache divides a packed row by its limits, too", async (device) => {
  using owned = new DisposableStack();
  const place = (data: Float32Array, heads: number, n: number) =>
    owned.use(Tensor.from(data, { shape: [1, heads, n, D], device }));
  const limits = { cu_seq_lens_q: Q, cu_seq_lens_k: K, max_length_q: 3, max_length_k: 7 };
  const operands = [place(q, H, 6), place(k, HKV, 16), place(v, HKV, 16)] as const;
  const [output] = flash_attention_forward(module, ...operands, null, { ...limits, sliding_window: 2 });
  owned.use(output);
  const wanted = expected(q, k, v, { sliding_window: 2 });
  assertClose(await output.data() as Float32Array, wanted, toleranceOf("attention_flash", device));
});

/** A cache of pages for one request, on top of an ordinary one. */
class OneRequest implements PagedCache {
  readonly inner = new DynamicCache();
  update(key: Tensor, value: Tensor, layer: number): [Tensor, Tensor] {
    return this.inner.update(key, value, layer);
  }
}

for (const name of ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4"]) {
  liveTest(
    `a model treats paged|${name} as ${name} without a paged cache, and uses one it is given`,
    async () => {
      await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation: name });
      const prompt = [3, 41, 19, 10, 47];
      using input_ids = ids([prompt]);
      using plain = await model.generate({ input_ids, max_new_tokens: 4 });
      const whole = await logits(model.forward({ input_ids, use_cache: false }));
      await model.set_attn_implementation(`paged|${name}`);
      assertEquals(model.config._attn_implementation, `paged|${name}`);
      using paged = await model.generate({ input_ids, max_new_tokens: 4 });
      assertEquals(await paged.tolist(), await plain.tolist());
      assertEquals(await logits(model.forward({ input_ids, use_cache: false })), whole);

      // In two forwards over one paged cache: three tokens, then the rest.
      const cache = new OneRequest();
      using _inner = cache.inner;
      const found: number[] = [];
      for (const [from, to] of [[0, 3], [3, 5]] as const) {
        using part = ids([prompt.slice(from, to)]);
        using position_ids = ids([prompt.slice(from, to).map((_, i) => from + i)]);
        const limits = { cu_seq_lens_q: [0, to - from], cu_seq_lens_k: [0, to] };
        found.push(...await logits(model.forward({ input_ids: part, position_ids, cache, ...limits })));
      }
      assertClose(found, whole, toleranceOf("logits", "wasm"));
      using past_key_values = new DynamicCache();
      await assertRejects(
        () => model.forward({ input_ids, cache, past_key_values }),
        InvalidArgument,
        "both cache and past_key_values",
      );
    },
  );
}

async function logits(output: Promise<object>): Promise<number[]> {
  const { logits, past_key_values } = await output as { logits: Tensor; past_key_values?: DynamicCache };
  past_key_values?.[Symbol.dispose]();
  using owned = logits;
  return Array.from(await owned.data() as Float32Array);
}

liveTest("attention() has no cache, so paged|X is X there", async () => {
  using x = Tensor.from(q, { shape: [1, H, 6, D] });
  const of = async (attn_implementation: string) => {
    const { attn_output, attn_weights } = await attention(x, x, x, { attn_implementation, is_causal: true });
    attn_weights?.[Symbol.dispose]();
    using owned = attn_output;
    return await owned.tolist();
  };
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    assertEquals(await of(`paged|${name}`), await of(name));
  }
});

liveTest("other names refuse what only paged attention reads", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(goldenPath("models/llama"));
  using input_ids = ids([[1, 2]]);
  const forward = () => model.forward({ input_ids, cu_seq_lens_q: [0, 2] });
  await assertRejects(forward, InvalidArgument, "cu_seq_lens_q");
});

reportSkipped();
