/**
 * The bundled library in a browser: `deno test -A --no-lock tests/browser/chromium_run.ts`. Needs Chromium, whose path
 * CHROMIUM names if it is another than `chromium`; without one its tests are skipped and counted, unless
 * REQUIRE_BROWSER=1.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { DeviceReport, Request } from "./checks.ts";
import { checkDevice } from "./checks.ts";
import { bundle, type Bundles, serve, type Site } from "./site.ts";

// Not literals in imports, so that neither checking nor the lock file depend on the package.
const PLAYWRIGHT = "npm:playwright-core@1.65.1";

/** What is used of Playwright. */
interface Page {
  goto(url: string): Promise<unknown>;
  evaluate<A, R>(fn: (argument: A) => R | Promise<R>, argument: A): Promise<R>;
  on(event: "console", listener: (message: { type(): string; text(): string }) => void): void;
  on(event: "pageerror", listener: (error: Error) => void): void;
  waitForSelector(selector: string): Promise<unknown>;
  textContent(selector: string): Promise<string | null>;
}
interface BrowserContext {
  newPage(): Promise<Page>;
  close(): Promise<void>;
}
interface Browser {
  newContext(): Promise<BrowserContext>;
  version(): string;
  close(): Promise<void>;
}
interface Playwright {
  readonly chromium: {
    launch(options: { executablePath: string; headless: boolean; args: string[] }): Promise<Browser>;
  };
}

/** WebGPU on a machine without a GPU: Chromium's own software driver, which it hides from pages by default. */
const FLAGS = ["--no-sandbox", "--enable-unsafe-webgpu"];

/** Rows of the suite for a driver that compiles a kernel in seconds. */
const GPU_ROWS = [
  "no mask",
  "causal prefill",
  "left padding, decode over a cache",
  "a predicate: every other key",
];

async function findChromium(): Promise<string | null> {
  for (const path of [Deno.env.get("CHROMIUM"), "/usr/bin/chromium", "/usr/bin/chromium-browser"]) {
    if (path !== undefined && (await Deno.stat(path).catch(() => null))?.isFile) return path;
  }
  return null;
}

const executablePath = await findChromium();
const missing = executablePath === null;
if (missing && Deno.env.get("REQUIRE_BROWSER") === "1") {
  throw new Error("REQUIRE_BROWSER=1, but there is no Chromium: install it, or name it in CHROMIUM");
}

/** Runs `fn` on new pages of a new profile, and collects what pages complain of. */
async function inBrowser(
  site: Site,
  fn: (open: (path?: string) => Promise<Page>) => Promise<void>,
): Promise<string[]> {
  const { chromium } = await import(PLAYWRIGHT) as Playwright;
  const browser = await chromium.launch({ executablePath: executablePath!, headless: true, args: FLAGS });
  const complaints: string[] = [];
  try {
    const context = await browser.newContext();
    await fn(async (path = "/empty.html") => {
      const page = await context.newPage();
      page.on("console", (message) => {
        if (message.type() === "error") complaints.push(message.text());
      });
      page.on("pageerror", (error) => void complaints.push(String(error)));
      await page.goto(site.origin + path);
      return page;
    });
    await context.close();
  } finally {
    await browser.close();
  }
  // The library asks whether a file exists by asking for it, which browsers write down as an error.
  return complaints.filter((text) => !/status of 404/.test(text));
}

/** Functions of the bundled checks, called in the page. */
const inPage = (page: Page, request: Request): Promise<DeviceReport> =>
  page.evaluate(async (asked) => {
    const path = "/attune/tests/browser/checks.js";
    const { checkDevice } = await import(path) as typeof import("./checks.ts");
    return await checkDevice(asked);
  }, request);

const pages = { "/empty.html": "<!doctype html><title>Attune</title>" };

function browserTest(name: string, fn: (bundles: Bundles) => Promise<void>): void {
  Deno.test({
    name: `browser: ${name}`,
    ignore: missing,
    // Playwright keeps a process and timers of its own.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      await using bundles = await bundle(["mod.ts", "testing.ts", "tests/browser/checks.ts"]);
      await fn(bundles);
    },
  });
}

const example = /```js\n(import [^`]*)```/.exec(
  Deno.readTextFileSync(new URL("../../README.md", import.meta.url)),
)![1]!;

browserTest("a page computes what Deno computes, on the CPU and on WebGPU", async (bundles) => {
  await using site = serve(bundles, { pages });
  const model = `${site.origin}/model`;
  const request: Request = { model, device: "wasm" };
  const expected = await checkDevice(request);
  assertEquals([expected.failures, expected.tokens.length > 12], [[], true]);
  const complaints = await inBrowser(site, async (open) => {
    const page = await open();
    assertEquals(await page.evaluate(() => Reflect.get(globalThis, "crossOriginIsolated"), null), true);
    const wasm = await inPage(page, request);
    console.log(`browser: ${wasm.description}; ${wasm.passed} rows`);
    assertEquals(wasm.failures, []);
    assertEquals([wasm.passed, wasm.tokens], [expected.passed, expected.tokens]);

    const rows = GPU_ROWS;
    const gpu = await inPage(page, { model, device: "webgpu", rows });
    console.log(`browser: ${gpu.description || "an adapter without a name"}; ${gpu.passed} rows`);
    assertEquals([gpu.available, gpu.failures], [true, []], gpu.description);
    assertEquals([gpu.passed > rows.length, gpu.tokens], [true, expected.tokens]);

    // The files are kept by the Cache API: another page of the origin asks nobody.
    const later = await open();
    site.seen.length = 0;
    const again = await inPage(later, { model, device: "wasm", rows: [], local_files_only: true });
    assertEquals(again.tokens, expected.tokens);
    assertEquals(site.seen.filter((path) => path.includes("/model/")), []);
  });
  assertEquals(complaints, []);
});

browserTest(
  "a page that may not share memory computes the same, and the library says what is missing",
  async (bundles) => {
    await using site = serve(bundles, { isolated: false, pages });
    const model = `${site.origin}/model`;
    const rows = ["no mask", "causal prefill, longer than a tile"];
    const expected = await checkDevice({ model, device: "wasm", rows });
    const complaints = await inBrowser(site, async (open) => {
      const page = await open();
      assertEquals(await page.evaluate(() => typeof SharedArrayBuffer, null), "undefined");
      const wasm = await inPage(page, { model, device: "wasm", rows });
      assertEquals(wasm.failures, []);
      assertEquals([wasm.passed, wasm.tokens], [expected.passed, expected.tokens]);
      assert(!wasm.description.includes("shared"), wasm.description);
      const said = await page.evaluate(async () => {
        const path = "/attune/tests/browser/checks.js";
        const { threadsHere } = await import(path) as typeof import("./checks.ts");
        return await threadsHere();
      }, null);
      assert(/InvalidArgument.*threads/.test(said), said);
    });
    assertEquals(complaints, []);
  },
);

browserTest("the README's example runs in a page under a strict policy", async (bundles) => {
  const origin: { value: string } = { value: "" };
  await using site = serve(bundles, {
    pages: {
      "/example.html": `<!doctype html><p></p><script type="module" src="/example.js"></script>`,
      get "/example.js"() {
        return example.replaceAll("https://example.org", origin.value) +
          "document.querySelector('p').textContent = text;";
      },
    },
  });
  origin.value = site.origin;
  const complaints = await inBrowser(site, async (open) => {
    const page = await open("/example.html");
    await page.waitForSelector("p:not(:empty)");
    assert((await page.textContent("p"))!.startsWith("In the beginning"));
  });
  assertEquals(complaints, []);
});

if (missing) {
  const line = "3 tests skipped because there is no Chromium here";
  Deno.test(`skips: ${line}`, () => console.log(line));
}
