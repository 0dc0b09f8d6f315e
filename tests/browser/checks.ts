/**
 * What any runtime must be able to do with the bundled library, as a program without a test runner and without Deno:
 * pages, Node and Deno run it, and the reports are compared.
 *
 * @module
 */
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  configure,
  device,
  type DeviceName,
  DynamicCache,
  liveBuffers,
  type Tensor,
} from "../../mod.ts";
import { CONFORMANCE_CASES, conformance_tests } from "../../testing.ts";

const PROMPT = "In the beginning God created";
const IMPLEMENTATIONS = ["eager", "sdpa", "flash_attention_2", "flex_attention"];

/** What a device can do here. */
export interface DeviceReport {
  /** The kernel build or the adapter, or why there is none. */
  readonly description: string;
  readonly available: boolean;
  /** Rows of the conformance suite that agree with the oracle. */
  readonly passed: number;
  /** Rows that do not, with their errors. */
  readonly failures: readonly string[];
  /** Prompt and new tokens of a generation in which attention is swapped twice. */
  readonly tokens: readonly number[];
}

/** What {@linkcode checkModel} is asked. */
export interface Request {
  /** URL of the model's folder. */
  readonly model: string;
  readonly device: DeviceName;
  /** Rows of the conformance suite by name; default: all of them. */
  readonly rows?: readonly string[];
  /** Ask no server: the files must be in this runtime's cache. */
  readonly local_files_only?: boolean;
}

/** Runs the conformance suite, loads the model, and generates, all on one device. Leaves nothing alive. */
export async function checkDevice(request: Request): Promise<DeviceReport> {
  let description: string;
  try {
    ({ description } = await device(request.device));
  } catch (error) {
    return { description: String(error), available: false, passed: 0, failures: [], tokens: [] };
  }
  const failures: string[] = [];
  let passed = 0;
  const cases = CONFORMANCE_CASES.filter(({ name }) => request.rows?.includes(name) ?? true);
  for (const implementation of IMPLEMENTATIONS) {
    for (const { name, ignore, fn } of conformance_tests(implementation, { device: request.device, cases })) {
      if (ignore) continue;
      try {
        await fn();
        passed++;
      } catch (error) {
        failures.push(`${implementation}: ${name}: ${error}`);
      }
    }
  }
  const tokens = await generate(request);
  const live = liveBuffers();
  if (live > 0) failures.push(`${live} tensors are left`);
  return { description, available: true, passed, failures, tokens };
}

/** Loads tokenizer and model from a server or a cache, and generates while attention is swapped. */
export async function generate({ model, device, local_files_only = false }: Request): Promise<number[]> {
  const tokenizer = await AutoTokenizer.from_pretrained(model, { local_files_only });
  await using loaded = await AutoModelForCausalLM.from_pretrained(model, { device, local_files_only });
  let { input_ids: tokens, attention_mask } = tokenizer(PROMPT);
  attention_mask[Symbol.dispose]();
  using past_key_values = new DynamicCache();
  for (const implementation of ["eager", "sdpa", "flash_attention_2"]) {
    await loaded.set_attn_implementation(implementation);
    using before: Tensor = tokens;
    tokens = await loaded.generate({ input_ids: before, max_new_tokens: 4, past_key_values });
  }
  using last = tokens;
  return ((await last.tolist()) as number[][])[0]!;
}

/** What the library says to a wish for two threads: the engine it makes, or why it cannot. */
export async function threadsHere(): Promise<string> {
  try {
    await configure({ threads: 2 });
    const { description } = await device("wasm");
    await configure({ threads: 1 });
    return description;
  } catch (error) {
    return String(error);
  }
}
