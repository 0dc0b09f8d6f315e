/**
 * Threads: the same bits whatever their number, and nothing lost when one of them is.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { configure, device, DeviceUnavailable, InvalidArgument } from "../../mod.ts";
import type { AttentionCall, View } from "../../src/devices/device.ts";
import { endCrew, theCrew } from "../../src/devices/wasm/crew.ts";
import { WasmEngine } from "../../src/devices/wasm/engine.ts";

/** Work that starts workers, on an engine of its own. */
class Bench {
  readonly engine: WasmEngine;
  #state = 1;

  constructor(threads: number, deterministic = false) {
    this.engine = new WasmEngine({ threads, deterministic });
  }

  /** Numbers in [−1, 1), the same for every bench (Park and Miller's generator). */
  #numbers(n: number): Float32Array<ArrayBuffer> {
    const numbers = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      this.#state = this.#state * 48271 % 2147483647;
      numbers[i] = this.#state / 2 ** 30 - 1;
    }
    return numbers;
  }

  view(shape: readonly number[], filled = true): View {
    const n = shape.reduce((a, b) => a * b, 1);
    const allocation = this.engine.allocate(4 * n);
    if (filled) this.engine.write(allocation, 0, new Uint8Array(this.#numbers(n).buffer));
    const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
    return { allocation, dtype: "float32", offset: 0, shape, strides };
  }

  attention(
    algorithm: "eager" | "flash",
    causal: boolean,
    Q: number,
    K: number,
    more: Partial<AttentionCall> = {},
  ): View {
    const [query, key, value] = [
      this.view([1, 4, Q, 32]),
      this.view([1, 2, K, 32]),
      this.view([1, 2, K, 32]),
    ];
    const out = this.view([1, Q, 4, 32], false);
    this.engine.kernels.attention({
      algorithm,
      query,
      key,
      value,
      out,
      weights: null,
      lse: null,
      scaling: 0.2,
      softcap: causal ? 20 : 0,
      query_offset: K - Q,
      causal,
      window_left: -1,
      window_right: -1,
      padding: null,
      zero_padded_queries: false,
      mask: null,
      blocks: null,
      sinks: null,
      ...more,
    });
    return out;
  }

  linear(M: number, I: number, O: number): View {
    const out = this.view([M, O], false);
    this.engine.kernels.linear(this.view([M, I]), this.view([O, I]), this.view([O]), out);
    return out;
  }

  /** One of every kind of kernel, each large enough to be shared. */
  all(): View[] {
    const { kernels } = this.engine;
    const x = this.view([700, 1024]), rows = this.view([700], false);
    const [same, product] = [() => this.view([700, 1024], false), this.view([700, 130], false)];
    const outputs = [same(), same(), same(), same(), same()] as const;
    kernels.rms_norm(x, this.view([1024]), 1e-6, 0, outputs[0]);
    kernels.layer_norm(x, this.view([1024]), this.view([1024]), 1e-6, outputs[1]);
    kernels.softmax(x, outputs[2], rows);
    kernels.unary("gelu", x, outputs[3]);
    kernels.binary("silu_mul", x, outputs[3], outputs[4]);
    kernels.matmul(x, this.view([1024, 130]), product, false);
    return [
      ...outputs,
      rows,
      product,
      this.linear(200, 300, 401),
      this.linear(1, 2048, 1500),
      this.linear(5, 1024, 900),
      this.attention("flash", true, 300, 333),
      this.attention("flash", false, 260, 260),
      this.attention("flash", true, 300, 333, { version: 2 }),
      this.attention("flash", true, 300, 333, { version: 3 }),
      this.attention("flash", false, 260, 260, { version: 3, precision: "int8" }),
      this.attention("flash", true, 1, 20_000),
      this.attention("eager", true, 150, 200),
    ];
  }

  async bytes(views: readonly View[]): Promise<Uint8Array[]> {
    const all: Uint8Array[] = [];
    for (const { allocation } of views) all.push(await this.engine.read(allocation, 0, allocation.bytes));
    return all;
  }
}

/** Makes a crew of `size` workers ready, all of them. */
async function ready(size: number): Promise<void> {
  const bench = new Bench(size + 1);
  for (let i = 0; theCrew().ready < size; i++) {
    assert(i < 500, `${theCrew().ready} of ${size} workers came`);
    await bench.bytes([bench.attention("flash", false, 600, 600)]);
  }
  // Not closed: without engines the workers would end.
  benches.push(bench);
}

const benches: Bench[] = [];

/** Closes what keeps workers, and forgets the crew. */
function end(): void {
  for (const { engine } of benches.splice(0)) engine.close();
  endCrew();
}

Deno.test("threads: every kernel gives the same bits on 1, 2, 3 and 4, in both modes", async () => {
  await configure({ threads: 4 });
  await ready(3);
  for (const deterministic of [false, true]) {
    const one = new Bench(1, deterministic);
    const expected = await one.bytes(one.all());
    one.engine.close();
    for (const threads of [2, 3, 4]) {
      const bench = new Bench(threads, deterministic);
      for (let round = 0; round < 2; round++) {
        const before = theCrew().shared;
        assertEquals(await bench.bytes(new Bench2(bench).all()), expected);
        assert(theCrew().shared - before >= 10, "commands were not shared");
      }
      bench.engine.close();
    }
  }
  end();
  await configure({ threads: "auto" });
});

/** The same numbers again on an engine that has computed already. */
class Bench2 extends Bench {
  constructor({ engine }: Bench) {
    super(1);
    this.engine.close();
    (this as { engine: WasmEngine }).engine = engine;
  }
}

/** Replaces the text of workers made while `fn` runs. */
async function withSource(change: (source: string) => string, fn: () => Promise<void>): Promise<void> {
  const { Blob: Original } = globalThis;
  globalThis.Blob = class extends Original {
    constructor(parts: BlobPart[] = [], options?: BlobPropertyBag) {
      super(parts.map((part) => typeof part === "string" ? change(part) : part), options);
    }
  };
  try {
    await fn();
  } finally {
    globalThis.Blob = Original;
  }
}

const INSIDE = "if (last) kernel(";

/** Every tenth claim of a worker ends it. */
const FAULTS = {
  throws: "if (Math.random() < 0.1) throw new Error('injected');",
  traps: "if (Math.random() < 0.1) kernel(4294967040, scratch, 0, 1000000);",
};

for (const [how, fault] of Object.entries(FAULTS)) {
  Deno.test(`threads: a worker that ${how} in the middle of a command takes nothing with it, and is replaced`, async () => {
    const { warn } = console;
    console.warn = () => {};
    try {
      await withSource((source) => source.replace(INSIDE, `${fault} ${INSIDE}`), async () => {
        await configure({ threads: 3 });
        const one = new Bench(1);
        const expected = await one.bytes([one.attention("flash", true, 700, 700)]);
        one.engine.close();
        const bench = new Bench(3);
        const before = theCrew().losses;
        for (let i = 0; i < 40; i++) {
          const again = new Bench2(bench);
          assertEquals(await bench.bytes([again.attention("flash", true, 700, 700)]), expected);
        }
        assert(theCrew().losses > before, "no worker was lost");
        bench.engine.close();
      });
    } finally {
      console.warn = warn;
      end();
      await configure({ threads: "auto" });
    }
  });
}

Deno.test("threads: terminated workers lose nothing and end nothing", async () => {
  const { Worker: Original } = globalThis;
  const started: Worker[] = [];
  globalThis.Worker = class extends Original {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options);
      started.push(this);
    }
  };
  try {
    await configure({ threads: 2 });
    await ready(1);
    const [bench] = benches as [Bench];
    const one = new Bench(1);
    const expected = await one.bytes([one.attention("flash", true, 1500, 1500)]);
    one.engine.close();
    const again = new Bench2(bench);
    const pending = bench.bytes([again.attention("flash", true, 1500, 1500)]);
    setTimeout(() => started.forEach((worker) => worker.terminate()), 10);
    assertEquals(await pending, expected);
    assertEquals(await bench.bytes([new Bench2(bench).attention("flash", true, 1500, 1500)]), expected);
  } finally {
    globalThis.Worker = Original;
    end();
    await configure({ threads: "auto" });
  }
});

Deno.test("threads: an abort and a close in the middle of a command leave no thread at work", async () => {
  await configure({ threads: 3 });
  await ready(2);
  const [bench] = benches as [Bench];
  for (let i = 0; i < 10; i++) {
    const controller = new AbortController();
    const out = bench.attention("flash", true, 1500, 1500);
    const aborted = bench.engine.flush(controller.signal).then(() => "ran", () => "aborted");
    setTimeout(() => controller.abort(), 2 + i);
    assertEquals(await aborted, "aborted");
    assertEquals(theCrew().inside, 0);
    bench.engine.release(out.allocation);
  }
  bench.attention("flash", true, 1500, 1500);
  const flushed = bench.engine.flush().catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 6));
  bench.engine.close();
  assertEquals(theCrew().inside, 0);
  await flushed;
  end();
  await configure({ threads: "auto" });
});

Deno.test("threads: the event loop turns, memory grows and synchronous reads work while others compute", async () => {
  await configure({ threads: 3 });
  await ready(2);
  const [bench] = benches as [Bench];
  const one = new Bench(1);
  const [expected] = await one.bytes([one.attention("flash", true, 1500, 1500)]);
  one.engine.close();
  const out = new Bench2(bench).attention("flash", true, 1500, 1500);
  let [turns, done] = [0, false];
  const flushed = bench.engine.flush().then(() => done = true);
  while (!done) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    const grown = bench.engine.allocate(1 << (20 + turns % 6));
    bench.engine.write(grown, 0, new Uint8Array(64).fill(255));
    bench.engine.release(grown);
    turns++;
  }
  await flushed;
  assert(turns >= 3, `the event loop turned ${turns} times`);
  assertEquals(await bench.engine.read(out.allocation, 0, out.allocation.bytes), expected);
  const now = new Bench2(bench).attention("flash", true, 1500, 1500);
  assertEquals(bench.engine.readNow(now.allocation, 0, now.allocation.bytes), expected);
  end();
  await configure({ threads: "auto" });
});

Deno.test("threads: where none can be started, asking for them is refused and nothing changes", async () => {
  const { Worker: Original } = globalThis;
  const { warn } = console;
  const warnings: string[] = [];
  console.warn = (text: string) => warnings.push(text);
  try {
    globalThis.Worker = class extends Original {
      constructor() {
        super("data:text/javascript,");
        this.terminate();
        throw new DOMException("refused by the content security policy", "SecurityError");
      }
    };
    const refused = await assertRejects(() => configure({ threads: 2 }), DeviceUnavailable);
    assert(refused.message.includes("threads: 2"), refused.message);
    const bench = new Bench(2);
    for (let i = 0; i < 20; i++) await bench.bytes([bench.attention("flash", false, 700, 700)]);
    bench.engine.close();
    assertEquals(warnings.length, 1, warnings.join("\n"));
    Reflect.deleteProperty(globalThis, "Worker");
    await assertRejects(() => configure({ threads: 2 }), InvalidArgument, "there is no Worker");
    await configure({ threads: "auto" });
    assert((await device("wasm")).description.includes("1 thread, because there is no Worker"));
  } finally {
    globalThis.Worker = Original;
    console.warn = warn;
    end();
    await configure({ threads: "auto" });
  }
});

Deno.test("threads: impossible numbers are refused, with what is allowed", async () => {
  for (const threads of [0, -1, 1.5, NaN, 65]) {
    await assertRejects(() => configure({ threads }), InvalidArgument, "1 to 64");
  }
  await assertRejects(() => configure({ threads: 16, max_memory: 1 << 26 }), InvalidArgument, "up to 8");
});

Deno.test("threads: a program that disposes nothing ends, and needs no permission", async () => {
  const program = `
    import { attention, configure, Tensor } from ${
    JSON.stringify(new URL("../../mod.ts", import.meta.url).href)
  };
    const { Worker: Original } = globalThis;
    let started = 0;
    globalThis.Worker = class extends Original { constructor(...args) { super(...args); started++; } };
    await configure({ threads: 2 });
    const q = Tensor.from(new Float32Array(8 * 1024 * 64).fill(0.1), { shape: [1, 8, 1024, 64] });
    for (let i = 0; i < 5; i++) await (await attention(q, q, q)).attn_output.data();
    console.log(started, Math.round(performance.now()));
  `;
  const file = await Deno.makeTempFile({ suffix: ".js" });
  try {
    await Deno.writeTextFile(file, program);
    const begun = performance.now();
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--quiet", file],
      stderr: "inherit",
    }).output();
    const [started, ended] = new TextDecoder().decode(stdout).split(" ").map(Number) as [number, number];
    assertEquals([code, started], [0, 1]);
    // Less than an idle worker takes to end by itself.
    const after = performance.now() - begun - ended;
    assert(after < 2500, `it ended ${after} ms after its last line`);
  } finally {
    await Deno.remove(file);
  }
});
