/**
 * The count of what arrives, and the end of several downloads when one of them fails.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ModelFileError } from "../../src/errors.ts";
import { openFiles } from "../../src/hub/open.ts";
import { DownloadMeter, type LoadProgress } from "../../src/hub/progress.ts";
import { broken, HURRY, pattern, serveModel } from "./remote_server.ts";

function meter() {
  const seen: [status: string, file: string, loaded: number, total: number][] = [];
  const show = ({ status, file, loaded, total }: LoadProgress) =>
    void seen.push([status, file, loaded, total]);
  return { seen, meter: new DownloadMeter(show) };
}

Deno.test("progress: files add up, and a download that starts again takes nothing back", () => {
  const { seen, meter: m } = meter();
  m.expect("a", 10);
  m.expect("b", 20);
  m.expect("a", 10); // as often as it likes
  m.arrived("a", 4);
  m.arrived("b", 20);
  m.arrived("a", 0); // from the beginning
  m.arrived("a", 3);
  m.arrived("a", 10);
  m.loading({ status: "progress", file: "m", loaded: 1, total: 8 });
  m.loading({ status: "done", file: "m", loaded: 8, total: 8 });
  assertEquals(seen, [
    ["download", "a", 4, 30],
    ["download", "b", 24, 30],
    ["download", "a", 30, 30],
    ["progress", "m", 31, 38],
    ["done", "m", 38, 38],
  ]);
});

Deno.test("progress: a file of unknown length counts as it comes, and its length when it is known", () => {
  const { seen, meter: m } = meter();
  m.expect("a", null);
  m.arrived("a", 0);
  m.arrived("a", 5);
  m.expect("a", 7);
  m.arrived("a", 7);
  m.done("a");
  assertEquals(seen, [
    ["download", "a", 0, 0],
    ["download", "a", 5, 5],
    ["download", "a", 7, 7],
    ["done", "a", 7, 7],
  ]);
});

Deno.test("progress: where one of several files fails the others are left, and their connections end", async () => {
  const bytes = pattern(100_000);
  const names = Array.from({ length: 6 }, (_, i) => `s${i}.safetensors`);
  await using site = await serveModel(Object.fromEntries(names.map((name) => [name, bytes])), {
    answer(seen, usual) {
      if (seen.method === "HEAD") return usual();
      if (seen.file === "s2.safetensors") return new Response("no", { status: 418 });
      return new Response(broken(bytes.slice(0, 1000), "silent"), { headers: new Headers(usual().headers) });
    },
  });
  const files = await openFiles(`${site.origin}/plain`, { cache_dir: null, patience: HURRY });
  const started = performance.now();
  await assertRejects(() => files.prepare(names), ModelFileError, "s2.safetensors: ");
  assert(performance.now() - started < HURRY.stall_ms / 2);
  assert(site.log().filter((line) => line.startsWith("GET")).length <= 4);
});
