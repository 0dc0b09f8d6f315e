/**
 * Which kernels `sdpa` may use, and in which order it prefers them.
 *
 * Source: PyTorch, `torch.nn.attention.sdpa_kernel`.
 *
 * @module
 */
import { type AsyncContext, asyncContext } from "../async_context.ts";
import type { AttentionAlgorithm, DeviceName } from "../devices/device.ts";
import { AttentionRefused, InvalidArgument } from "../errors.ts";

/** Kernels of `sdpa`, with PyTorch's names and values. */
export enum SDPBackend {
  /** No backend. */
  ERROR = -1,
  /** Materialises the scores. */
  MATH = 0,
  /** Tiled with an online softmax. */
  FLASH_ATTENTION = 1,
  /** Tiled; on `"webgpu"` only, where it is the same tiling. */
  EFFICIENT_ATTENTION = 2,
  /** Not available here. */
  CUDNN_ATTENTION = 3,
  /** Not available here. */
  OVERRIDEABLE = 4,
}

/** What is enabled, and the order of preference over all backends. */
interface Selection {
  enabled: ReadonlySet<SDPBackend>;
  priority: readonly SDPBackend[];
}

const ALL = [
  SDPBackend.FLASH_ATTENTION,
  SDPBackend.EFFICIENT_ATTENTION,
  SDPBackend.MATH,
  SDPBackend.CUDNN_ATTENTION,
  SDPBackend.OVERRIDEABLE,
];

const outer: Selection = { enabled: new Set(ALL), priority: ALL };
let scoped: AsyncContext<Selection> | null | undefined;

function context(): AsyncContext<Selection> | null {
  return scoped === undefined ? scoped = asyncContext<Selection>() : scoped;
}

/** The selection that holds here; changed in place by the `using` form. */
function current(): Selection {
  return context()?.getStore() ?? outer;
}

/** Backends enabled now, the preferred one first. */
export function enabledSdpaBackends(): SDPBackend[] {
  const { enabled, priority } = current();
  return priority.filter((b) => enabled.has(b));
}

/** Whether anything but the default holds: then the order of preference decides, not the shape. */
function isDefault(order: readonly SDPBackend[]): boolean {
  return order.length === ALL.length && order.every((b, i) => b === ALL[i]);
}

/** Checks a backend or a list of them; duplicates are dropped. @throws {InvalidArgument} */
export function checkBackends(backends: unknown): SDPBackend[] {
  const list: unknown[] = Array.isArray(backends) ? backends : [backends];
  for (const b of list) {
    if (typeof b !== "number" || !ALL.includes(b)) {
      throw new InvalidArgument(
        `Cannot select ${
          JSON.stringify(b) ?? String(b)
        } as an SDPA backend: expected an SDPBackend or a list of them ` +
          `(${ALL.map((x) => `SDPBackend.${SDPBackend[x]}`).join(", ")})`,
      );
    }
  }
  return [...new Set(list as SDPBackend[])];
}

/** Options of {@linkcode sdpa_kernel}. */
export interface SdpaKernelOptions {
  /** Prefer the backends in the order of the list. */
  set_priority?: boolean;
}

/**
 * Restricts `sdpa` to some kernels: `{ using _ = sdpa_kernel(SDPBackend.MATH); … }` until the end of the block for
 * everything that runs meanwhile, as in Python. Contexts nest; an inner one replaces the outer.
 *
 * @throws {InvalidArgument} for anything but backends
 */
export function sdpa_kernel(
  backends: SDPBackend | readonly SDPBackend[],
  options?: SdpaKernelOptions,
): Disposable;
/**
 * Restricts `sdpa` to some kernels inside `fn` and all it awaits. Concurrent tasks do not see it where the runtime
 * has asynchronous context (Deno, Node, Workers); the option `sdpa_backends` of forward, generate and attention is
 * isolated everywhere.
 *
 * @throws {InvalidArgument} for anything but backends
 */
export function sdpa_kernel<T>(
  backends: SDPBackend | readonly SDPBackend[],
  fn: () => T,
  options?: SdpaKernelOptions,
): T;
export function sdpa_kernel<T>(
  backends: SDPBackend | readonly SDPBackend[],
  second: (() => T) | SdpaKernelOptions = {},
  third: SdpaKernelOptions = {},
): Disposable | T {
  const chosen = checkBackends(backends);
  if (typeof second !== "function") return enter(current(), chosen, second);
  const store = context();
  if (store !== null) {
    const inner = { ...current() };
    return store.run(inner, () => {
      enter(inner, chosen, third);
      return second();
    });
  }
  const held = enter(outer, chosen, third);
  try {
    const result = second();
    if (!(result instanceof Promise)) {
      held[Symbol.dispose]();
      return result;
    }
    return result.finally(() => held[Symbol.dispose]()) as T;
  } catch (error) {
    held[Symbol.dispose]();
    throw error;
  }
}

/** Changes a selection until disposed. */
function enter(
  selection: Selection,
  chosen: readonly SDPBackend[],
  { set_priority = false }: SdpaKernelOptions,
): Disposable {
  const before = { ...selection };
  selection.enabled = new Set(chosen);
  if (set_priority) selection.priority = [...chosen, ...before.priority.filter((b) => !chosen.includes(b))];
  let left = false;
  return {
    [Symbol.dispose]() {
      if (left) return;
      left = true;
      selection.enabled = before.enabled;
      // As PyTorch leaves it: what was enabled before comes first, in its old order; the rest keeps its present order.
      const first = before.priority.filter((b) => before.enabled.has(b));
      if (set_priority) {
        selection.priority = [
          ...first,
          ...selection.priority.filter((b) => !first.includes(b)),
        ];
      }
    },
  };
}

/** The algorithm behind each backend, per device. */
const ALGORITHMS: Readonly<Record<DeviceName, Partial<Record<SDPBackend, AttentionAlgorithm>>>> = {
  wasm: { [SDPBackend.MATH]: "eager", [SDPBackend.FLASH_ATTENTION]: "flash" },
  webgpu: {
    [SDPBackend.MATH]: "eager",
    [SDPBackend.FLASH_ATTENTION]: "flash",
    [SDPBackend.EFFICIENT_ATTENTION]: "flash",
  },
};

/**
 * The algorithm for one call: the shape's own choice while nothing was selected, else the first enabled backend
 * that exists on the device.
 *
 * @throws {AttentionRefused} when no enabled backend exists there, with the reason for each
 */
export function chooseSdpaAlgorithm(
  device: DeviceName,
  given: unknown,
  byShape: AttentionAlgorithm,
): AttentionAlgorithm {
  const order = given === undefined || given === null ? enabledSdpaBackends() : checkBackends(given);
  if (isDefault(order)) return byShape;
  for (const backend of order) {
    const algorithm = ALGORITHMS[device][backend];
    if (algorithm !== undefined) return algorithm;
  }
  const known = Object.keys(ALGORITHMS[device]).map((b) => SDPBackend[Number(b)]).join(", ");
  throw new AttentionRefused(
    `Cannot run sdpa: no viable backend is enabled; "${device}" has ${known}`,
    ALL.map((b) => ({
      name: SDPBackend[b],
      verdict: order.includes(b) ? `rejected (not available on "${device}")` : "rejected (not enabled)",
    })),
  );
}
