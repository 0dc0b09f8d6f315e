/**
 * Saving tokenizers.
 *
 * @module
 */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { AutoTokenizer, ModelFileError } from "../../mod.ts";
import { inFolder, namesIn } from "../support/folders.ts";

const DEMO = decodeURIComponent(new URL("../models/demo", import.meta.url).pathname);

Deno.test("a tokenizer is written as it was read, with its chat template, and read again", async () => {
  await inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/from`);
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
      await Deno.copyFile(`${DEMO}/${name}`, `${folder}/from/${name}`);
    }
    const template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    await Deno.writeTextFile(`${folder}/from/chat_template.jinja`, template);
    const tokenizer = await AutoTokenizer.from_pretrained(`${folder}/from`);
    await tokenizer.save_pretrained(`${folder}/to`);
    assertEquals(namesIn(`${folder}/to`), namesIn(`${folder}/from`));
    for (const name of namesIn(`${folder}/from`)) {
      assertEquals(
        await Deno.readFile(`${folder}/to/${name}`),
        await Deno.readFile(`${folder}/from/${name}`),
      );
    }
    const again = await AutoTokenizer.from_pretrained(`${folder}/to`);
    assertEquals(again.encode("In the beginning"), tokenizer.encode("In the beginning"));
    assertEquals(again.chat_template, template);
  });
});

Deno.test("a template of another tokenizer does not stay, other files do", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/chat_template.jinja`, "of another");
    await Deno.writeTextFile(`${folder}/notes.txt`, "mine");
    const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
    await tokenizer.save_pretrained(folder);
    assertEquals(namesIn(folder), ["notes.txt", "tokenizer.json", "tokenizer_config.json"]);
    assertEquals((await AutoTokenizer.from_pretrained(folder)).chat_template, tokenizer.chat_template);
  });
});

Deno.test({
  name: "without leave to write, the error names the flag",
  permissions: { read: true, write: false },
  fn: async () => {
    const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
    const error = await assertRejects(() => tokenizer.save_pretrained("./somewhere"), ModelFileError);
    assertStringIncludes(error.message, "--allow-write");
  },
});
