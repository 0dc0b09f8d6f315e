/**
 * What this machine can do in this process, right now: the yardsticks every rate is divided by.
 *
 * P128 is the 128-bit fused multiply-add peak of one thread: twelve independent chains of `f32x4.relaxed_madd` on
 * registers only (latency 4 × 2 units needs at least eight; with the two operands twelve chains still fit the 15
 * vector registers V8 hands out on x64). BW is the rate at which WASM code reads a memory larger than the caches
 * it can count on, with as many streams at a time as are fastest. Both are measured in the same rounds as what they are compared with, because the machine's
 * speed changes from minute to minute.
 *
 * The module is assembled here, opcode by opcode, so that it cannot change with a toolchain.
 *
 * @module
 */
import { cpuNow } from "./timing.ts";

const [I32, F32, V128] = [0x7f, 0x7d, 0x7b];
const CHAINS = 12;
const MADDS_PER_CHAIN = 8;
/** 4 lanes, a multiplication and an addition each. */
const FLOPS_PER_TURN = CHAINS * MADDS_PER_CHAIN * 4 * 2;
const BYTES_PER_TURN = 256;
/** A single stream leaves the prefetchers idle half of the time on some processors: the fastest counts. */
const STREAMS = [1, 2, 4, 8] as const;
const LOADS = BYTES_PER_TURN / 16;

/** Unsigned LEB128. */
function leb(value: number): number[] {
  const bytes: number[] = [];
  do {
    const group = value & 127;
    value >>>= 7;
    bytes.push(value === 0 ? group : group | 128);
  } while (value !== 0);
  return bytes;
}

const list = (items: readonly number[][]) => [...leb(items.length), ...items.flat()];
const sized = (bytes: readonly number[]) => [...leb(bytes.length), ...bytes];
const section = (id: number, items: readonly number[][]) => [id, ...sized(list(items))];
const get = (local: number) => [0x20, ...leb(local)];
const set = (local: number) => [0x21, ...leb(local)];
/** i32.const. Its operand is signed: two bytes hold what one would read as negative. */
const i32 = (value: number) => [0x41, value & 127 | 128, value >> 7];
const simd = (op: number) => [0xfd, ...leb(op)];
const f32splat = (value: number) => [
  0x43,
  ...new Uint8Array(Float32Array.of(value).buffer),
  ...simd(0x13), // f32x4.splat
];
/** Repeats `body` while it leaves a true i32 on the stack. */
const loop = (body: readonly number[]) => [0x03, 0x40, ...body, 0x0d, 0, 0x0b];

/** (param turns i32) (result f32): locals 1…12 are the accumulators, 13 and 14 the operands. */
function peakBody(): number[] {
  const [a, b] = [CHAINS + 1, CHAINS + 2];
  const chain = (acc: number) => [...get(a), ...get(b), ...get(acc), ...simd(0x105), ...set(acc)];
  const chains = Array.from({ length: CHAINS }, (_, i) => chain(i + 1)).flat();
  return [
    ...list([[CHAINS + 2, V128]]),
    ...f32splat(1),
    ...set(a),
    ...f32splat(2 ** -20),
    ...set(b),
    ...loop([
      ...Array.from({ length: MADDS_PER_CHAIN }, () => chains).flat(),
      ...[...get(0), ...i32(1), 0x6b, 0x22, 0], // turns − 1, kept as the condition
    ]),
    ...get(1),
    ...Array.from({ length: CHAINS - 1 }, (_, i) => [...get(i + 2), ...simd(0xe4)]).flat(), // f32x4.add
    ...simd(0x1f), // f32x4.extract_lane 0
    0,
    0x0b,
  ];
}

/**
 * (param address i32, stride i32, turns i32) (result i32): reads 256 bytes a turn, divided over `streams` places
 * that lie `stride` bytes apart, into 4 sums.
 */
function sweepBody(streams: number): number[] {
  const place = (stream: number) => stream === 0 ? 0 : 2 + stream;
  const sum = (i: number) => 2 + streams + i % 4;
  const each = LOADS / streams;
  const add = simd(0xae); // i32x4.add
  const load = (i: number) => [...get(place(Math.floor(i / each))), ...simd(0x00), 4, ...leb(i % each * 16)];
  return [
    ...list([[streams - 1, I32], [4, V128]]),
    ...Array.from(
      { length: streams - 1 },
      (_, j) => [...get(place(j)), ...get(1), 0x6a, ...set(place(j + 1))],
    ).flat(),
    ...loop([
      ...Array.from({ length: LOADS }, (_, i) => [...get(sum(i)), ...load(i), ...add, ...set(sum(i))]).flat(),
      ...Array.from(
        { length: streams },
        (_, j) => [...get(place(j)), ...i32(each * 16), 0x6a, ...set(place(j))],
      ).flat(),
      ...[...get(2), ...i32(1), 0x6b, 0x22, 2],
    ]),
    ...get(sum(0)),
    ...[1, 2, 3].flatMap((i) => [...get(sum(i)), ...add]),
    ...simd(0x1b), // i32x4.extract_lane 0
    0,
    0x0b,
  ];
}

/** The module: imports `m.m`, exports `peak`, and `sweepN` over N streams. */
export function assembleProbe(): Uint8Array<ArrayBuffer> {
  const name = (text: string) => sized([...new TextEncoder().encode(text)]);
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [
      [0x60, ...list([[I32]]), ...list([[F32]])],
      [0x60, ...list([[I32], [I32], [I32]]), ...list([[I32]])],
    ]),
    ...section(2, [[...name("m"), ...name("m"), 0x02, 0x00, ...leb(1)]]),
    ...section(3, [[0], ...STREAMS.map(() => [1])]),
    ...section(7, [
      [...name("peak"), 0x00, 0],
      ...STREAMS.map((n, i) => [...name(`sweep${n}`), 0x00, i + 1]),
    ]),
    ...section(10, [sized(peakBody()), ...STREAMS.map((n) => sized(sweepBody(n)))]),
  ]);
}

/** The probes of this process. */
export interface Probe {
  /** Multiply-adds on registers, about 20 ms of them. */
  peak(): void;
  /** Turns of its loop. */
  readonly turns: number;
  /** Floating-point operations of one `peak`. */
  readonly flops: number;
  /** Reads the whole memory once. */
  sweep(): void;
  /** Bytes of one `sweep`. */
  readonly bytes: number;
  /** Streams `sweep` reads at a time. */
  readonly streams: number;
}

/**
 * Instantiates the probe with `mebibytes` of memory, all of it written so that every page is real. With `given` turns
 * two probes do the same work.
 */
export function makeProbe(mebibytes = 256, given?: number): Probe {
  const memory = new WebAssembly.Memory({ initial: Math.max(1, mebibytes * 16) });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(assembleProbe()), { m: { m: memory } });
  const peak = exports["peak"] as (turns: number) => number;
  const sweeps = STREAMS.map((n) => ({
    n,
    call: exports[`sweep${n}`] as (address: number, stride: number, turns: number) => number,
  }));
  const bytes = memory.buffer.byteLength;
  const sweepBy = ({ n, call }: typeof sweeps[number], length: number) => {
    const result = call(0, length / n, length / BYTES_PER_TURN);
    const expected = Math.imul(0x01010101, length / 16) | 0;
    if (result !== expected) throw new Error(`The read probe summed ${result}, expected ${expected}`);
  };
  new Uint8Array(memory.buffer).fill(1);
  // Small calls first: V8 replaces a running baseline function only at its next call.
  for (let i = 0; i < 40; i++) {
    peak(20_000);
    for (const sweep of sweeps) sweepBy(sweep, Math.min(2 ** 20, bytes));
  }
  const tried = sweeps.map((sweep) => {
    const times = Array.from({ length: 3 }, () => {
      const used = cpuNow();
      sweepBy(sweep, bytes);
      return cpuNow() - used;
    });
    return { sweep, ms: Math.min(...times) };
  });
  const fastest = tried.reduce((a, b) => b.ms < a.ms ? b : a).sweep;
  const trial = 100_000;
  const used = cpuNow();
  peak(trial);
  const turns = given ?? Math.ceil(trial * 20 / Math.max(0.5, cpuNow() - used));
  return {
    turns,
    flops: turns * FLOPS_PER_TURN,
    peak() {
      const result = peak(turns);
      if (!Number.isFinite(result)) throw new Error(`The peak probe computed ${result}`);
    },
    bytes,
    streams: fastest.n,
    sweep() {
      sweepBy(fastest, bytes);
    },
  };
}
