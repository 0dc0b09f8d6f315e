/* tslint:disable */
/* eslint-disable */

/**
 * Checks a safetensors header strictly; returns JSON, sorted by offset. See the `safetensors` module.
 */
export function check_safetensors_header(header: Uint8Array, data_len: number): string;

/**
 * Encodes a postfix program as a WASM module that exports `tile`. See the `tile` module.
 */
export function encode_tile_function(ops: Uint8Array, args: Float64Array, shared: boolean): Uint8Array;

/**
 * The operations of [`encode_tile_function`] in the order of their codes: `name operands arguments`, one a line.
 */
export function tile_operations(): string;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly check_safetensors_header: (a: number, b: number, c: number, d: number) => void;
    readonly encode_tile_function: (a: number, b: number, c: number, d: number, e: number, f: number) => void;
    readonly tile_operations: (a: number) => void;
    readonly __wbindgen_add_to_stack_pointer: (a: number) => number;
    readonly __wbindgen_export: (a: number, b: number) => number;
    readonly __wbindgen_export2: (a: number, b: number, c: number) => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
