/**
 * The grammar of kernel packages' names, against recordings.
 *
 * @module
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ALL_ATTENTION_FUNCTIONS,
  AutoModel,
  eager_attention_forward,
  InvalidArgument,
  is_kernel,
} from "../../mod.ts";
import { parseKernelName } from "../../src/attention/kernel_name.ts";
import { goldenCases, goldenPath } from "../support/golden.ts";

const names = goldenCases("hub", "is_kernel");

Deno.test(`golden hub: ${names.length} names are, or are not, those of kernel packages`, () => {
  const found = names.map(({ id, params }) => [id, is_kernel(params.name as string)]);
  assertEquals<unknown>(
    found,
    names.map(({ id, expect }) => [id, (expect as { is_kernel: boolean }).is_kernel]),
  );
});

interface Load {
  readonly loads: readonly { repo_id: string; revision: string | null; has_version: boolean }[];
}
const loads = goldenCases("hub", "load_and_register");

Deno.test(`golden hub: ${loads.length} names lead to the recorded repository and revision, or to none`, () => {
  const found = loads.map(({ id, params }) => {
    const name = params.name as string;
    if (!is_kernel(name)) return [id, []];
    const { repo_id, revision } = parseKernelName(name);
    // Without a revision the version of a table decides.
    return [id, [{ repo_id, revision, has_version: revision === null }]];
  });
  assertEquals<unknown>(found, loads.map(({ id, expect }) => [id, (expect as unknown as Load).loads]));
});

Deno.test("a kernel package's name is split into its parts", () => {
  const rows = [
    ["org/repo", "org/repo", null, null, false],
    ["paged|org/repo@v2", "org/repo", "v2", null, true],
    ["org/repo @ v2 : fn ", "org/repo", "v2", "fn", false],
    ["org/repo@v1@v2", "org/repo", "v1@v2", null, false],
    ["org/repo@", "org/repo", null, null, false],
  ] as const;
  for (const [name, repo_id, revision, fn, paged] of rows) {
    assertEquals(parseKernelName(name), { repo_id, revision, function: fn, paged });
  }
  for (const name of ["org", "a/b/c", "org/repo:", ""]) {
    assertThrows(() => parseKernelName(name), InvalidArgument, `"${name}"`);
  }
});

Deno.test("a kernel package that is asked for is refused as one, not as an unknown name", async () => {
  const name = "kernels-community/flash-attn2";
  const words = "kernel packages cannot be loaded yet";
  assertThrows(
    () => ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward),
    InvalidArgument,
    words,
  );
  const load = () => AutoModel.from_pretrained(goldenPath("models/llama"), { attn_implementation: name });
  await assertRejects(load, InvalidArgument, words);
});
