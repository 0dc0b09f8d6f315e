//! What the host asks of Rust: reading untrusted bytes strictly, and encoding compiled score functions.
//!
//! The functions below are the whole surface; each is a thin wrapper of a plain Rust function, so that the
//! tests run without a WASM runtime. None of them panics on any input: a refusal is an error with a message.

#[cfg(feature = "reader")]
mod bytecode;
#[cfg(feature = "inspect")]
mod inspect;
#[cfg(feature = "reader")]
mod json;
#[cfg(feature = "reader")]
mod safetensors;
#[cfg(any(feature = "reader", feature = "inspect"))]
mod text;
#[cfg(feature = "reader")]
mod tile;

use wasm_bindgen::prelude::*;

fn throw(message: String) -> JsError {
    JsError::new(&message)
}

/// Checks a safetensors header strictly; returns JSON, sorted by offset. See the `safetensors` module.
#[cfg(feature = "reader")]
#[wasm_bindgen]
pub fn check_safetensors_header(header: &[u8], data_len: f64) -> Result<String, JsError> {
    safetensors::check(header, data_len).map_err(throw)
}

/// Validates a WASM module and lists what it imports and exports. Flags: 1 relaxed SIMD, 2 threads, 4 memory64.
#[cfg(feature = "inspect")]
#[wasm_bindgen]
pub fn inspect_wasm(bytes: &[u8], flags: u32) -> Result<String, JsError> {
    inspect::inspect(bytes, flags).map_err(throw)
}

/// Encodes a postfix program as a WASM module that exports `tile`. See the `tile` module.
#[cfg(feature = "reader")]
#[wasm_bindgen]
pub fn encode_tile_function(ops: &[u8], args: &[f64], shared: bool) -> Result<Vec<u8>, JsError> {
    tile::encode(ops, args, shared).map_err(throw)
}

/// The operations of [`encode_tile_function`] in the order of their codes: `name operands arguments`, one a line.
#[cfg(feature = "reader")]
#[wasm_bindgen]
pub fn tile_operations() -> String {
    tile::OPS.map(|(name, operands, arguments)| format!("{name} {operands} {arguments}")).join("\n")
}
