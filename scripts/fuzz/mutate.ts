/**
 * Mutations of valid inputs: values of JSON that break rules one at a time, and texts that are cut and spliced.
 *
 * @module
 */
import type { Random } from "../../tests/support/random.ts";

/** Values that readers get wrong. */
const ODD: readonly (() => unknown)[] = [
  () => 0,
  () => -1,
  () => 1,
  () => 0.5,
  () => 2 ** 31,
  () => 2 ** 32,
  () => 2 ** 53 - 1,
  () => 2 ** 53,
  () => 1e300,
  () => -1e300,
  () => null,
  () => true,
  () => "",
  () => "x",
  () => "__proto__",
  () => "../x",
  () => "\u0000",
  () => "\uD800",
  () => "x".repeat(5000),
  () => [],
  () => {},
  () => ({}),
  () => [[]],
  () => new Array(2000).fill(1),
  () => Array.from({ length: 40 }).reduce<unknown>((inner) => [inner], 1),
  () => Array.from({ length: 40 }).reduce<unknown>((inner) => ({ type: "Sequence", x: inner }), 1),
];

type Container = unknown[] | Record<string, unknown>;

function containers(value: unknown, found: Container[] = []): Container[] {
  if (typeof value !== "object" || value === null) return found;
  found.push(value as Container);
  for (const child of Object.values(value)) containers(child, found);
  return found;
}

/** JSON like `json`, with a few parts changed, moved, doubled or gone. */
export function mutateJson(json: unknown, random: Random): unknown {
  const root = { root: structuredClone(json) };
  for (let i = random.int(0, 4); i >= 0; i--) {
    const all = containers(root);
    const at = random.pick(all) as Record<string, unknown>;
    const keys = Object.keys(at);
    const key = keys.length === 0 ? "x" : random.pick(keys);
    const other = random.pick(all) as Record<string, unknown>;
    const otherKeys = Object.keys(other);
    switch (random.int(0, 8)) {
      case 0:
        delete at[key];
        break;
      case 1:
        if (otherKeys.length > 0) at[key] = structuredClone(other[random.pick(otherKeys)]);
        break;
      case 2:
        Object.defineProperty(at, random.pick(["__proto__", "constructor", "x", "", "0"]), {
          value: at[key],
          enumerable: true,
          configurable: true,
          writable: true,
        });
        break;
      case 3:
        if (typeof at[key] === "number") at[key] = (at[key] as number) + random.pick([-1, 1, 0.5, 2 ** 32]);
        else at[key] = random.pick(ODD)();
        break;
      case 4:
        if (typeof at[key] === "string") at[key] = mutateText(at[key] as string, [], random);
        break;
      default:
        at[key] = random.pick(ODD)();
    }
  }
  return root.root;
}

/** A text like `text`, cut, doubled, and spliced with pieces of `others`. */
export function mutateText(text: string, others: readonly string[], random: Random): string {
  let out = text;
  for (let i = random.int(0, 4); i >= 0; i--) {
    const from = random.int(0, out.length + 1), to = Math.min(out.length, from + random.int(0, 40));
    const piece = out.slice(from, to);
    const other = others.length === 0 ? out : random.pick(others);
    const at = random.int(0, other.length + 1);
    const fresh = [
      () => "",
      () => piece + piece,
      () => piece.repeat(random.int(0, 200)),
      () => other.slice(at, at + random.int(0, 200)),
      () => String.fromCharCode(random.int(0, 128)),
      () => piece.replace(/\d+/g, () => String(random.pick([0, -1, 1e9, 10 ** 18]))),
    ];
    out = out.slice(0, from) + random.pick(fresh)() + out.slice(to);
  }
  return out.slice(0, 200_000);
}

/** Bytes like `bytes`, flipped, cut and spliced. */
export function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array<ArrayBuffer> {
  let out = Uint8Array.from(bytes);
  for (let i = random.int(0, 3); i >= 0; i--) {
    const from = random.int(0, out.length + 1), to = Math.min(out.length, from + random.int(0, 16));
    const fresh = Uint8Array.from({ length: random.int(0, 16) }, () => random.int(0, 256));
    if (random.next() < 0.5 && out.length > 0) out[random.int(0, out.length)] = random.int(0, 256);
    else out = Uint8Array.from([...out.subarray(0, from), ...fresh, ...out.subarray(to)]);
  }
  return out;
}
