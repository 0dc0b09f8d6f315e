/**
 * The kernel builds: what is embedded is what the manifest names, and shared memory changes one byte and no result.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { View } from "../../src/devices/device.ts";
import { type EngineOptions, WasmEngine } from "../../src/devices/wasm/engine.ts";
import { kernelBytes } from "../../src/devices/wasm/kernel_bytes.ts";
import { seeded } from "../support/random.ts";

const BUILDS = ["simd", "relaxed"] as const;
const built = new URL("../../wasm/built/", import.meta.url);

Deno.test("wasm builds: the embedded bytes are those of the manifest and of the file beside it", async () => {
  const manifest = JSON.parse(await Deno.readTextFile(new URL("manifest.json", built)));
  for (const build of BUILDS) {
    const bytes = kernelBytes(build, false);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
    assertEquals(hash, manifest.modules[`attune_${build}`].sha256);
    assertEquals(bytes, await Deno.readFile(new URL(`attune_${build}.wasm`, built)));
  }
});

Deno.test("wasm builds: shared memory changes one byte, and no build imports anything but its memory", () => {
  for (const build of BUILDS) {
    const [plain, shared] = [kernelBytes(build, false), kernelBytes(build, true)];
    assertEquals(plain.filter((byte, i) => byte !== shared[i]).length, 1);
    assertEquals(plain.length, shared.length);
    for (const bytes of [plain, shared]) {
      const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes));
      assertEquals(imports.map(({ module, name, kind }) => [module, name, kind]), [[
        "env",
        "memory",
        "memory",
      ]]);
    }
  }
});

Deno.test("wasm builds: the function table is exported and grows, and so is the stack pointer", () => {
  for (const build of BUILDS) {
    const memory = new WebAssembly.Memory({ initial: 32, maximum: 65536 });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(kernelBytes(build, false)), {
      env: { memory },
    });
    const table = exports["__indirect_function_table"];
    assert(table instanceof WebAssembly.Table);
    const before = table.length;
    table.grow(3);
    assertEquals(table.length, before + 3);
    assert(exports["__stack_pointer"] instanceof WebAssembly.Global);
  }
});

/** Bytes of products of few and of many rows and of an attention on a fresh engine. */
async function compute(options: EngineOptions): Promise<{ build: string; bytes: Uint8Array }> {
  const engine = new WasmEngine({ maximum: 2 ** 26, ...options });
  const random = seeded(7);
  const view = (shape: readonly number[], values?: Float32Array<ArrayBuffer>): View => {
    const n = shape.reduce((a, b) => a * b, 1);
    const allocation = engine.allocate(n * 4);
    if (values !== undefined) engine.write(allocation, 0, new Uint8Array(values.buffer));
    const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
    return { allocation, dtype: "float32", offset: 0, shape, strides };
  };
  const filled = (...shape: number[]) => view(shape, random.normal(shape.reduce((a, b) => a * b, 1)));
  const [x, weight, y] = [filled(9, 70), filled(33, 70), view([9, 33])];
  engine.kernels.linear(x, weight, null, y);
  // More than one block of the contraction, and edges that fill no tile.
  const [many, wide, bias, packed] = [filled(97, 1030), filled(37, 1030), filled(37), view([97, 37])];
  engine.kernels.linear(many, wide, bias, packed);
  const [query, key, value, out] = [
    filled(1, 4, 20, 24),
    filled(1, 2, 90, 24),
    filled(1, 2, 90, 24),
    view([1, 20, 4, 24]),
  ];
  engine.kernels.attention({
    algorithm: "flash",
    query,
    key,
    value,
    out,
    weights: null,
    lse: null,
    scaling: 0.2,
    softcap: 0,
    query_offset: 70,
    causal: true,
    window_left: -1,
    window_right: -1,
    padding: null,
    zero_padded_queries: false,
    mask: null,
    blocks: null,
    sinks: null,
  });
  const parts = [
    await engine.read(y.allocation, 0, 9 * 33 * 4),
    await engine.read(packed.allocation, 0, 97 * 37 * 4),
    await engine.read(out.allocation, 0, 20 * 4 * 24 * 4),
  ];
  const { build } = engine;
  engine.close();
  return { build, bytes: Uint8Array.from(parts.flatMap((part) => [...part])) };
}

Deno.test("wasm builds: shared and unshared memory give the same bits", async () => {
  const { SharedArrayBuffer } = globalThis;
  for (const deterministic of [true, false]) {
    const shared = await compute({ deterministic });
    let unshared;
    try {
      Object.assign(globalThis, { SharedArrayBuffer: undefined });
      unshared = await compute({ deterministic });
    } finally {
      Object.assign(globalThis, { SharedArrayBuffer });
    }
    assertEquals(
      [shared.build, unshared.build],
      deterministic ? ["simd_shared", "simd"] : ["relaxed_shared", "relaxed"],
    );
    assertEquals(shared.bytes, unshared.bytes);
  }
});

Deno.test("wasm builds: narrow and wide tiles give the same bits", async () => {
  for (const deterministic of [true, false]) {
    const narrow = await compute({ deterministic, tiles: "narrow" });
    const wide = await compute({ deterministic, tiles: "wide" });
    assertEquals(narrow.bytes, wide.bytes);
    assert(new Float32Array(narrow.bytes.buffer).every((x) => Number.isFinite(x)));
  }
});
