"""What Python's gguf and sentencepiece make and read of GGUF files: recorded for tests/gguf.

    pip install gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0 sentencepiece==0.2.3
    python make_gguf.py

Writes gguf/written.gguf with what it holds in gguf/written.json, gguf/blocks.safetensors with blocks and the numbers they
stand for, and gguf/sentencepiece.json with a vocabulary and texts it cut.
"""
import io
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

OUT = Path(__file__).parent / "gguf"
TYPES = [T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q6_K]


def blocks(rng, kind):
    """Four rows of 512 numbers as blocks; rare ones among them. K-quants are only read by the package: random bytes."""
    x = rng.normal(size=(4, 512)).astype(np.float32)
    x[0, :32] = 0
    x[1, :32] *= 1e-6
    x[2, 0] = 300
    if kind != T.Q6_K:
        return gguf.quants.quantize(x, kind)
    raw = rng.integers(0, 256, (4, 2, 210), dtype=np.uint8)
    raw[:, :, 208:] = rng.normal(size=(4, 2)).astype(np.float16).view(np.uint8).reshape(4, 2, 2)
    return raw.reshape(4, 420)


def write(rng):
    held = {kind.name: blocks(rng, kind) for kind in TYPES}
    tensors = {}
    for name, raw in held.items():
        tensors[f"{name}.blocks"] = raw.view(np.uint8)
        tensors[f"{name}.values"] = gguf.quants.dequantize(raw, T[name]).astype(np.float32)
    save_file(tensors, OUT / "blocks.safetensors")

    path = OUT / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    values = {
        "uint8": 255, "int8": -128, "uint16": 65535, "int16": -32768, "uint32": 2**32 - 1, "int32": -(2**31),
        "uint64": 2**53 + 1, "int64": -(2**40), "float32": 0.1, "float64": 0.1, "bool": True, "string": "späti ▁ \U0001f600",
    }
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(f"test.{kind}", value)
    lists = {"numbers": [1, -2, 3], "floats": [0.5, -1.25], "texts": ["a", "", "▁b"], "truths": [True, False]}
    for kind, value in lists.items():
        writer.add_array(f"test.{kind}", value)
    for name, raw in held.items():
        writer.add_tensor(name, raw, raw_dtype=T[name])
    writer.add_tensor("cube", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(path)
    values["uint64"] = str(values["uint64"])
    values["float32"] = float(np.float32(0.1))
    found = [
        {
            "name": t.name,
            "type": t.tensor_type.name,
            "shape": [int(n) for n in reversed(t.shape)],
            "offset": int(t.data_offset),
            "bytes": int(t.n_bytes),
        }
        for t in reader.tensors
    ]
    (OUT / "written.json").write_text(json.dumps({"values": values, "lists": lists, "tensors": found}, indent=1) + "\n")


TEXTS = [
    "And God said, Let there be light: and there was light.",
    "  two spaces, and\nlines\n\n",
    "12 lamps and 345 stars",
    "späti \U0001f600 ▁ \t",
    "",
    "a",
    "</s> and <0x41>",
]


def cut():
    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=model, model_type="bpe", vocab_size=700,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        allow_whitespace_only_pieces=True, split_digits=True, num_threads=1,
    )
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(sp.get_piece_size())
    kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
    recorded = {
        "tokens": [sp.id_to_piece(i) for i in ids],
        "scores": [sp.get_score(i) for i in ids],
        "types": [kind(i) for i in ids],
        "cases": [{"text": t, "ids": sp.encode(t), "decoded": sp.decode(sp.encode(t))} for t in TEXTS],
    }
    (OUT / "sentencepiece.json").write_text(json.dumps(recorded, indent=None) + "\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    write(np.random.default_rng(1234))
    cut()
