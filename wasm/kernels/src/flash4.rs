//! FlashAttention-4 on a CPU: rescaling only where it matters.
//!
//! Over version 2: weights are taken against a reference that follows the maximum only when it has grown by more
//! than 2⁸, so in almost every tile the output so far is neither scaled nor its factor computed (conditional
//! rescaling, FlashAttention-4, Zadouri et al. 2026); the division at the end makes it exact, and sums of weights
//! up to 2⁸ are far from overflow. Its other half, an exponential made of multiply-adds instead of a special unit,
//! is what every version does here: a CPU has no such unit, and the polynomial of math.rs is already the whole
//! cost. What it gains: bench/NOTES.md.
use crate::attention::Attention;
use crate::columns::Floats;
use crate::flash::{run, Version};

/// Parts: as `attention_flash`.
#[no_mangle]
pub unsafe extern "C" fn attention_flash_4(params: *const Attention, scratch: *mut u8, begin: u32, end: u32) {
    let version = Version {
        overlap: false,
        slack: 8.0,
    };
    run::<Floats>(version, &*params, scratch, begin, end);
}
