#!/usr/bin/env python3
"""Record what Transformers generates with the tiny models of this folder, and what its logits processors leave.

    pip install torch==2.15.0 transformers==5.23.0 safetensors
    python make_generation.py            # writes generation.json beside itself

Nothing is drawn by chance: the cases are greedy and beam search, processors on given scores, and stop strings in the
greedy text of ../models/demo. Scores that were taken out (minus infinity) are written as null.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from transformers.generation import logits_process as lp  # noqa: E402

transformers.logging.set_verbosity_error()

HERE = Path(__file__).resolve().parent
MODELS = ("llama", "gemma2", "mistral")
PROMPTS = [[3, 41, 19, 10, 47, 6, 12, 36], [21, 6, 49, 10, 35, 2, 33, 50]]
PADDED = [[0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]]
NEW = 8
PAD = 62


def numbers(values: torch.Tensor) -> list:
    """Nested lists of what a float32 tensor holds, exactly, with null for minus infinity."""
    if values.dim() > 0:
        return [numbers(v) for v in values]
    x = values.item()
    return None if x == float("-inf") else x


def ends(model, count: int) -> list[int]:
    """Tokens that the model is likely to come to: the last ones of a beam search without an end."""
    out = model.generate(
        torch.tensor(PROMPTS), attention_mask=torch.ones(2, 8, dtype=torch.long), num_beams=4,
        num_return_sequences=4, max_new_tokens=NEW, pad_token_id=PAD,
    )
    tokens = out[:, 8 + 2 : 8 + 6].flatten().tolist()
    return sorted(set(tokens), key=lambda t: (-tokens.count(t), t))[:count]


def generation_cases(arch: str, model) -> list[dict]:
    a, b, c = ends(model, 3)
    cases = []

    def add(name: str, mask=None, steps: bool = False, **options):
        beams = options.get("num_beams", 1) > 1
        options = {"max_new_tokens": NEW, "pad_token_id": PAD, **options}
        out = model.generate(
            torch.tensor(PROMPTS), attention_mask=torch.tensor(mask or [[1] * 8] * 2),
            return_dict_in_generate=True, output_scores=True, output_logits=steps, **options,
        )
        expect = {"sequences": out.sequences.tolist()}
        if beams:
            expect["sequences_scores"] = numbers(out.sequences_scores)
            expect["beam_indices"] = out.beam_indices.tolist()
        if steps:
            expect["scores"] = [numbers(s) for s in out.scores]
            expect["logits"] = [numbers(s) for s in out.logits]
        cases.append({"id": f"{arch}/{name}", "arch": arch, "attention_mask": mask, "options": options, "expect": expect})

    add("greedy")
    add("greedy/eos", eos_token_id=[a, b])
    add("greedy/repetition_penalty", repetition_penalty=1.3)
    add("greedy/repetition_penalty/padded", mask=PADDED, repetition_penalty=2.0)
    add("greedy/repetition_penalty/below_1", repetition_penalty=0.6)
    add("greedy/min_new_tokens", eos_token_id=[a, b], min_new_tokens=5)
    add("greedy/min_length", eos_token_id=[a, b], min_length=11)
    add("greedy/max_length", eos_token_id=a, max_new_tokens=None, max_length=12)
    if arch == "llama":
        add("greedy/scores", steps=True, repetition_penalty=1.5, max_new_tokens=2)
        add("beams/scores", steps=True, num_beams=2, repetition_penalty=1.5, max_new_tokens=2)

    for beams in (2, 3, 4):
        add(f"beams_{beams}", num_beams=beams)
        add(f"beams_{beams}/all", num_beams=beams, num_return_sequences=beams)
        add(f"beams_{beams}/eos", num_beams=beams, eos_token_id=a)
        add(f"beams_{beams}/two_eos", num_beams=beams, eos_token_id=[a, b], num_return_sequences=2)
    for early_stopping in (False, True, "never"):
        for penalty in (-1.0, 0.0, 0.5, 1.0, 2.0):
            add(
                f"beams_3/early_{early_stopping}/length_penalty_{penalty}", num_beams=3, num_return_sequences=3,
                eos_token_id=[a, b, c], early_stopping=early_stopping, length_penalty=penalty,
            )
    add("beams_2/long", num_beams=2, eos_token_id=[a, c], max_new_tokens=16, length_penalty=2.0, early_stopping="never")
    add("beams_3/padded", mask=PADDED, num_beams=3, num_return_sequences=2, eos_token_id=[a, b])
    add("beams_3/min_new_tokens", num_beams=3, num_return_sequences=3, eos_token_id=[a, b], min_new_tokens=4)
    add("beams_3/repetition_penalty", num_beams=3, num_return_sequences=3, repetition_penalty=1.4)
    add("beams_4/one_token", num_beams=4, num_return_sequences=4, max_new_tokens=1)
    return cases


def processor_cases() -> list[dict]:
    rng = random.Random(1234)
    cases = []
    V = 24

    def scores(step: float) -> torch.Tensor:
        """Scores with many ties where `step` is large."""
        return torch.tensor([round(rng.gauss(0, 2) / step) * step for _ in range(V)], dtype=torch.float32)[None]

    def add(op: str, given: torch.Tensor, made: torch.Tensor, **params):
        filters = op in ("top_k", "top_p", "min_p")
        kept = [i for i, x in enumerate(made[0].tolist()) if x != float("-inf")]
        if filters:
            assert torch.equal(made[0][kept], given[0][kept])
        cases.append({
            "op": op, **params, "scores": numbers(given[0]),
            **({"kept": kept} if filters else {"result": numbers(made[0])}),
        })

    ids = torch.tensor([[0]])
    for step in (2**-20, 0.5, 2.0):
        for keep in (1, 3):
            for k in (1, 2, 5, 23, 24, 100):
                x = scores(step)
                add("top_k", x, lp.TopKLogitsWarper(k, min_tokens_to_keep=keep)(ids, x), value=k, keep=keep)
            for p in (0.05, 0.25, 0.5, 0.75, 0.9, 0.999):
                x = scores(step)
                add("top_p", x, lp.TopPLogitsWarper(p, min_tokens_to_keep=keep)(ids, x), value=p, keep=keep)
            for p in (0.0, 0.01, 0.1, 0.5, 1.0):
                x = scores(step)
                add("min_p", x, lp.MinPLogitsWarper(p, min_tokens_to_keep=keep)(ids, x), value=p, keep=keep)
        # One filter after the other.
        x = scores(step)
        x = lp.TopKLogitsWarper(7)(ids, x)
        add("top_p", x, lp.TopPLogitsWarper(0.6)(ids, x), value=0.6, keep=1)
        add("min_p", x, lp.MinPLogitsWarper(0.2)(ids, x), value=0.2, keep=1)
    # Exactly half of the probability, where all are alike.
    for p in (0.25, 0.5, 0.75):
        x = torch.full((1, 4), 1.0)
        add("top_p", x, lp.TopPLogitsWarper(p)(ids, x), value=p, keep=1)
    for penalty in (0.7, 1.1, 1.3, 3.0):
        history = [rng.randrange(V) for _ in range(9)]
        for ignore in (0, 4):
            x = scores(2**-20)
            processor = lp.RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=torch.tensor([ignore]))
            add(
                "repetition_penalty", x, processor(torch.tensor([history]), x), value=penalty, start=ignore,
                history=history,
            )
    for temperature in (0.3, 0.7, 1.7, 10.0):
        x = scores(2**-20)
        add("temperature", x, lp.TemperatureLogitsWarper(temperature)(ids, x), value=temperature)
    for length in (3, 4, 5):
        x = scores(2**-20)
        history = [1, 2, 3, 4]
        processor = lp.MinLengthLogitsProcessor(length, [5, 9])
        add("min_length", x, processor(torch.tensor([history]), x), value=length, eos=[5, 9], history=history)
    return cases


def stop_string_cases() -> dict:
    """Where the greedy text of the demo model ends, for strings from the middle of it."""
    folder = HERE.parent / "models" / "demo"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("In the beginning")["input_ids"]
    options = {"max_new_tokens": 24, "eos_token_id": None, "pad_token_id": 2, "do_sample": False}
    ids = torch.tensor([prompt])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :]
    text = tokenizer.decode(plain)
    strings = [[text[i : i + n]] for n in (1, 2, 3, 5, 9, 14) for i in range(2, len(text) - n, 7)]
    strings += [[text[20:24], text[9:14]], ["not in the text", text[30:33]], ["never \u00e9 there"]]
    cases = []
    for stop in strings:
        try:
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), stop_strings=stop, tokenizer=tokenizer, **options
            )
        except ValueError:
            continue  # a string no token can be part of
        cases.append({"stop_strings": stop, "new_tokens": out.shape[1] - len(prompt)})
    return {"prompt": prompt, "tokens": plain.tolist(), "text": text, "cases": cases}


def main() -> None:
    torch.manual_seed(0)
    generations = []
    for arch in MODELS:
        model = AutoModelForCausalLM.from_pretrained(HERE / "models" / arch, attn_implementation="eager")
        model.generation_config = transformers.GenerationConfig()
        generations += generation_cases(arch, model.eval())
    recorded = {
        "reference": {"torch": torch.__version__, "transformers": transformers.__version__},
        "prompts": PROMPTS,
        "generations": generations,
        "processors": processor_cases(),
        "stop_strings": stop_string_cases(),
    }
    lines = []
    for key, value in recorded.items():
        rows = value if isinstance(value, list) else None
        text = (
            "[\n  " + ",\n  ".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]"
            if rows and isinstance(rows[0], dict)
            else json.dumps(value, separators=(",", ":"))
        )
        lines.append(f"{json.dumps(key)}:{text}")
    (HERE / "generation.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
