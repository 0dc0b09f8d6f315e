/**
 * Run by leak_test.ts in a process of its own, with the garbage collector within reach: tensors that nobody disposes.
 * Prints JSON lines of the tensors that are alive, before and after they are collected.
 *
 * @module
 */
import { attention, AttentionInterface, liveBuffers, ops, Tensor } from "../../mod.ts";

const gc = (globalThis as { gc?: () => void }).gc;
if (gc === undefined) throw new Error("run with --v8-flags=--expose-gc");

AttentionInterface.register("endless", (_module, query) => {
  ops.exp(query);
  return new Promise(() => {});
});

/** Drops results of operations and of a scope, a view whose base is disposed, and what an endless function made. */
function drop(): void {
  using base = ops.add(Tensor.from([1, 2, 3, 4]), 1);
  ops.reshape(ops.tidy(() => ops.mul(base, 2)), [2, 2]);
  ops.reshape(base, [4, 1]);
  const states = ops.reshape(base, [1, 1, 2, 2]);
  void attention(states, states, states, { attn_implementation: "endless" });
}

for (let i = 0; i < 20; i++) drop();
console.log(JSON.stringify({ live: liveBuffers() }));
for (let i = 0; i < 200 && liveBuffers() > 0; i++) {
  gc();
  await new Promise((resolve) => setTimeout(resolve, 10));
}
console.log(JSON.stringify({ live: liveBuffers() }));
