//! The CPU kernels of Attune.
//!
//! Every exported kernel is `fn(params, scratch, begin, end)`: `params` points to its `#[repr(C)]` struct of
//! 4-byte fields, `scratch` to [`SCRATCH`] bytes of the running thread, and `begin..end` is the range of
//! independent parts to do. Arguments were checked by the caller, so pointers are trusted and nothing panics.
//!
//! What holds for all of them: the value of an output element depends neither on how parts are sliced nor on the
//! number of rows or batches in the call, and the plain build gives the same bits on every engine.
//!
//! Shape legend: `B` batch, `H` query heads, `Hkv` key/value heads, `Q` query length, `K` key length, `D` head
//! dimension of query and key, `Dv` of value.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg_attr(
    all(target_arch = "wasm32", target_feature = "relaxed-simd"),
    feature(asm_experimental_arch)
)]

mod activation;
mod attention;
mod blocks;
mod columns;
mod decode;
mod dot;
mod dtype;
mod eager;
mod embedding;
mod flash;
mod flash3;
mod flash4;
mod gemm;
mod group;
mod kv_quantize;
mod linear;
mod map;
mod mask;
mod math;
#[cfg(test)]
mod math_test;
mod matmul;
mod narrow;
mod norm;
mod outer;
mod pack;
mod quantized;
mod quantized_layout;
mod quantized_products;
mod quantized_rows;
mod quantized_simd;
mod quantized_weights;
mod reduce;
mod rotary;
mod score;
mod scores;
mod simd;
#[cfg(not(target_arch = "wasm32"))]
mod simd_portable;
mod six;
mod softmax;
mod strided;
mod tile;
#[cfg(test)]
mod tile_test;
mod wide;

/// Bytes of scratch memory a kernel is handed, 64-byte aligned.
pub const SCRATCH: usize = 1 << 20;

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
