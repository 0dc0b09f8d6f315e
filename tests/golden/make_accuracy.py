#!/usr/bin/env python3
"""Record how far PyTorch's own float32 attention is from float64, on operands that anybody can make again.

    python make_accuracy.py > accuracy.json

The operands are a formula of small integers (`operand`), which `tests/support/accuracy.ts` follows bit for bit; so
only errors are recorded. For every shape: `rms` and `max`, a number a seed, of `scaled_dot_product_attention` with
the math and with the flash backend, on one thread; and the sum of the operands, by which both sides know that they
speak of the same.
"""

import json
import math
import sys

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SEEDS = 20
SHAPES = [
    {"name": "prefill 192, D 64", "H": 4, "Hkv": 2, "Q": 192, "K": 192, "D": 64, "causal": False, "sharpness": 1},
    {"name": "prefill 192, D 64, causal", "H": 4, "Hkv": 2, "Q": 192, "K": 192, "D": 64, "causal": True, "sharpness": 1},
    {"name": "prefill 96, D 128, causal", "H": 2, "Hkv": 2, "Q": 96, "K": 96, "D": 128, "causal": True, "sharpness": 1},
    {"name": "40 after 1460, D 80, causal", "H": 2, "Hkv": 1, "Q": 40, "K": 1500, "D": 80, "causal": True, "sharpness": 1},
    {"name": "decode over 2048, D 64", "H": 8, "Hkv": 2, "Q": 1, "K": 2048, "D": 64, "causal": False, "sharpness": 1},
    {"name": "sharp scores, 160, D 32", "H": 4, "Hkv": 4, "Q": 160, "K": 160, "D": 32, "causal": False, "sharpness": 8},
]
BACKENDS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION}


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3, on uint32."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def operand(seed: int, which: int, n: int, sharpness: int) -> np.ndarray:
    """`n` numbers of about the standard normal distribution: four 16-bit numbers added, centred and scaled."""
    with np.errstate(over="ignore"):
        start = mixed(np.array([seed * 4 + which + 1], dtype=np.uint32))[0]
        i = np.arange(n, dtype=np.uint32) * np.uint32(2)
        a, b = mixed(start + i), mixed(start + i + np.uint32(1))
    low, high = np.uint32(0xFFFF), np.uint32(16)
    total = ((a & low).astype(np.int64) + (a >> high) + (b & low) + (b >> high) - 131070).astype(np.float64)
    # The scale has few bits, so that no product is rounded before the float32 is made.
    return (total * (sharpness * 1.75 / 65536)).astype(np.float32)


def main() -> None:
    torch.set_num_threads(1)
    shapes = []
    for shape in SHAPES:
        H, Hkv, Q, K, D = (shape[key] for key in ("H", "Hkv", "Q", "K", "D"))
        checksum = 0.0
        errors = {name: {"rms": [], "max": []} for name in BACKENDS}
        for seed in range(SEEDS):
            parts = [
                operand(seed, 0, H * Q * D, shape["sharpness"]),
                operand(seed, 1, Hkv * K * D, 1),
                operand(seed, 2, Hkv * K * D, 1),
            ]
            checksum += sum(math.fsum(part.tolist()) for part in parts)
            q, k, v = (
                torch.from_numpy(part).reshape(1, heads, rows, D)
                for part, heads, rows in zip(parts, (H, Hkv, Hkv), (Q, K, K))
            )
            k, v = (x.repeat_interleave(H // Hkv, dim=1) for x in (k, v))
            options = {}
            if shape["causal"]:
                options = {"is_causal": True} if Q == K else {"attn_mask": torch.ones(Q, K).tril(K - Q).bool()}
            with sdpa_kernel(SDPBackend.MATH):
                exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), **options)
            for name, backend in BACKENDS.items():
                with sdpa_kernel(backend):
                    got = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
                error = (got.double() - exact).abs()
                errors[name]["rms"].append(float(f"{error.square().mean().sqrt().item():.6g}"))
                errors[name]["max"].append(float(f"{error.max().item():.6g}"))
        shapes.append({**shape, "checksum": checksum, "torch": errors})
    recorded = {
        "torch": torch.__version__.split("+")[0],
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "seeds": SEEDS,
        "shapes": shapes,
    }
    json.dump(recorded, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
