/**
 * Flash attention in all its variants through Dawn's compiler: two whole products, of the forms of masks by version, and
 * of versions by tile, type and head size. The variants are what the device's own encoder makes of calls, so none is
 * missed and none is made up, and they are counted.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { AttentionCall, BlocksView, FlashVersion, View } from "../../src/devices/device.ts";
import { flash } from "../../src/devices/webgpu/attention.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { type KernelLimits, LEAST_LIMITS } from "../../src/devices/webgpu/flash_tile.ts";
import { SHADERS } from "../../src/devices/webgpu/shaders.ts";
import { subgroupFlags } from "../../src/devices/webgpu/subgroups.ts";
import { specialise } from "../../src/devices/webgpu/template.ts";
import type { DType } from "../../src/dtype.ts";
import { FLOATS, nullGpu, Views } from "./null_gpu.ts";

const gpu = await nullGpu();
const VERSIONS: readonly FlashVersion[] = [2, 3, 4];
const BOTH = [false, true];

/** Tiles are chosen from these: what every adapter has, a software adapter, a GPU. */
const LIMITS: readonly KernelLimits[] = [
  LEAST_LIMITS,
  { workgroupBytes: 32768, invocations: 1024, unrolled: false },
  { workgroupBytes: 49152, invocations: 1024, unrolled: true },
];

/** Queries of a call: decoding, a short tile, and tiles of which the versions differ. */
const QUERIES = [1, 12, 40];

interface Sizes {
  readonly Q: number;
  readonly K: number;
  readonly D: number;
  readonly kv: DType;
}

/** Every combination of one value of each list. */
function* product<T extends Readonly<Record<string, readonly unknown[]>>>(
  lists: T,
): Generator<{ [N in keyof T]: T[N][number] }> {
  const names = Object.keys(lists);
  const sizes = names.map((name) => lists[name]!.length);
  const all = sizes.reduce((a, b) => a * b, 1);
  for (let i = 0; i < all; i++) {
    let rest = i;
    const one = Object.fromEntries(names.map((name, n) => {
      const value = lists[name]![rest % sizes[n]!];
      rest = Math.floor(rest / sizes[n]!);
      return [name, value];
    }));
    yield one as { [N in keyof T]: T[N][number] };
  }
}

/** Variants of flash, of its kernel for few rows and of the merge that calls have led to. */
interface Count {
  readonly flash: number;
  readonly flash_few: number;
  readonly flash_merge: number;
}

/**
 * Compiles what a device with these limits makes of calls. The null device has no more than the least workgroup memory, so
 * that larger tiles are compiled as modules, without a pipeline.
 */
async function compile(
  limits: KernelLimits,
  calls: (views: Views) => Iterable<AttentionCall>,
): Promise<Count> {
  const device = new WebGpuDevice({ gpu: gpu as GPU, unrolled: limits.unrolled });
  const raw = await device.acquire();
  const keys = { flash: new Set<string>(), flash_few: new Set<string>(), flash_merge: new Set<string>() };
  const problems: string[] = [];
  {
    using views = new Views(device);
    for (const call of calls(views)) {
      for (const dispatch of flash(call, (shape) => views.make(shape), limits)) {
        const made = keys[dispatch.stem as keyof typeof keys];
        if (made.has(dispatch.key)) continue;
        made.add(dispatch.key);
        if (limits.workgroupBytes === LEAST_LIMITS.workgroupBytes) {
          device.record(dispatch);
          continue;
        }
        // The tile of a GPU with what GPUs have.
        const flags = { DEEP: limits.unrolled, ...subgroupFlags(limits.unrolled ? 32 : 0) };
        const text = specialise(SHADERS[dispatch.stem], { ...dispatch.constants, ...flags });
        const code = limits.unrolled ? `enable subgroups;\n${text}` : text;
        raw.pushErrorScope("validation");
        raw.createShaderModule({ label: dispatch.key, code });
        const error = await raw.popErrorScope();
        if (error) problems.push(`${dispatch.key}: ${error.message}`);
      }
    }
    await device.flush();
  }
  assertEquals(problems.slice(0, 3), []);
  await device.destroy();
  const { flash: whole, flash_few, flash_merge } = keys;
  return { flash: whole.size, flash_few: flash_few.size, flash_merge: flash_merge.size };
}

/** A call without masks; views of the same shape are made once. */
function plain(
  views: (shape: readonly number[], dtype?: DType) => View,
  { Q, K, D, kv }: Sizes,
): AttentionCall {
  return {
    algorithm: "flash",
    query: views([1, 2, Q, D]),
    key: views([1, 1, K, D], kv),
    value: views([1, 1, K, D], kv),
    out: views([1, Q, 2, D]),
    ...{ weights: null, lse: null, scaling: 1, softcap: 0, query_offset: 0, causal: false },
    ...{ window_left: -1, window_right: -1, padding: null, zero_padded_queries: false },
    ...{ mask: null, blocks: null, sinks: null },
  };
}

function memo(views: Views): (shape: readonly number[], dtype?: DType) => View {
  const made = new Map<string, View>();
  return (shape, dtype = "float32") => {
    const key = `${dtype} ${shape}`;
    const view = made.get(key) ?? views.make(shape, dtype);
    made.set(key, view);
    return view;
  };
}

function blocksOf(make: ReturnType<typeof memo>, Q: number): BlocksView {
  const bands = Math.ceil(Q / 8), lists = 2 * bands * 2;
  const index = make([lists + 20], "int32");
  return {
    size: [8, 8],
    lists: { ...index, shape: [1, 2, bands, 2], strides: [lists, bands * 2, 2, 1] },
    entries: { ...index, shape: [10, 2], strides: [2, 1], offset: lists },
    bits: make([10, 8, 1], "uint8"),
  };
}

/** Every combination of masks and what else changes scores or outputs. */
function* masked(
  views: Views,
  Q: number,
  K: number,
  versions: readonly FlashVersion[],
): Generator<AttentionCall> {
  const make = memo(views);
  const base = plain(make, { Q, K, D: 8, kv: "float32" });
  const forms = {
    ...{ version: versions, causal: BOTH, left: BOTH, right: BOTH, softcap: BOTH, sinks: BOTH, lse: BOTH },
    ...{ blocks: BOTH, padding: ["none", "keys", "queries"], mask: ["none", "bool", "float32"] as const },
  };
  for (const form of product(forms)) {
    yield {
      ...base,
      version: form.version,
      causal: form.causal,
      window_left: form.left ? 3 : -1,
      window_right: form.right ? 3 : -1,
      softcap: form.softcap ? 5 : 0,
      sinks: form.sinks ? make([2]) : null,
      lse: form.lse ? make([1, 2, Q]) : null,
      blocks: form.blocks ? blocksOf(make, Q) : null,
      padding: form.padding === "none" ? null : make([1, K], "bool"),
      zero_padded_queries: form.padding === "queries",
      mask: form.mask === "none" ? null : make([1, 2, Q, K], form.mask),
    };
  }
}

/** Causal, left, right and softcap; forms of padding and of dense masks. */
const LIMITED = 2 ** 4, PADDINGS = 3, MASKS = 3;
/** Without blocks all else is bound by one kernel: sinks and log-sum-exp too. */
const WITHOUT_BLOCKS = LIMITED * PADDINGS * MASKS * 2 * 2;
/** Beside blocks two more bindings fit: none (1), one (2 + 2 + 1 + 1), or two (13) of those four. */
const WITH_BLOCKS = LIMITED * (1 + 6 + 13);
/** With three or four of them keys are split, and sinks and sums left to the merge: 4 + 2 + 2 forms of padding and mask. */
const SPLIT_BY_BLOCKS = LIMITED * 8;
/** Versions that differ where blocks keep 3 from loading ahead. */
const DISTINCT_BESIDE_BLOCKS = 2;

function lint(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: `lint: flash, ${name}`, ignore: typeof gpu === "string", fn });
}

lint("every combination of masks, by version", async () => {
  const made = await compile(LEAST_LIMITS, (views) => masked(views, 40, 40, VERSIONS));
  const blocks = DISTINCT_BESIDE_BLOCKS * (WITH_BLOCKS + SPLIT_BY_BLOCKS);
  assertEquals(made, { flash: VERSIONS.length * WITHOUT_BLOCKS + blocks, flash_few: 0, flash_merge: 3 });
});

lint("every combination of masks, keys split", async () => {
  const made = await compile(LEAST_LIMITS, (views) => masked(views, 1, 600, [2]));
  const masks = LIMITED * PADDINGS * MASKS;
  assertEquals(made, { flash: masks, flash_few: masks, flash_merge: 4 });
});

for (const [i, limits] of LIMITS.entries()) {
  lint(`every type and head size on tile ${i}, by version`, async () => {
    const D = limits.unrolled ? [7, 8, 64, 128] : [1, 7, 8, 24, 64, 80, 128, 192, 256];
    const made = await compile(limits, function* (views) {
      const make = memo(views);
      for (
        const form of product({ Q: QUERIES, kv: FLOATS, D, version: VERSIONS, blocks: BOTH })
      ) {
        const { Q, version, blocks } = form;
        yield { ...plain(make, { ...form, K: 40 }), version, blocks: blocks ? blocksOf(make, Q) : null };
      }
    });
    // Two short tiles with and without blocks, and those of which the versions differ.
    const tiles = 2 * 2 + VERSIONS.length + DISTINCT_BESIDE_BLOCKS;
    assertEquals(made, { flash: D.length * FLOATS.length * tiles, flash_few: 0, flash_merge: 0 });
  });
}

for (const unrolled of BOTH) {
  lint(`every type and head size, keys streamed, loops ${unrolled ? "written out" : "kept"}`, async () => {
    const limits = unrolled ? LIMITS[2]! : LEAST_LIMITS;
    const D = [1, 7, 8, 64, 80, 128, 192, 256];
    const made = await compile(limits, function* (views) {
      const make = memo(views);
      for (const form of product({ kv: FLOATS, D })) {
        for (const H of [2, 8]) {
          const call = plain(make, { ...form, Q: 1, K: 600 });
          yield { ...call, query: make([1, H, 1, form.D]), out: make([1, 1, H, form.D]) };
        }
      }
    });
    assertEquals(made, { flash: 0, flash_few: D.length * FLOATS.length * 2, flash_merge: 1 });
  });
}

if (typeof gpu === "string") {
  const line = `7 tests skipped because ${gpu}`;
  Deno.test(`skips: ${line}`, () => console.log(line));
}
