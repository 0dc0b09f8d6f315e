#!/usr/bin/env python3
"""Train the small Llama that the demo ships.

Text: the King James Bible (1611, copyright expired), printed by the program of Debian's package `bible-kjv`.
Out: a standard Hugging Face checkpoint (config.json, generation_config.json, model.safetensors in bfloat16,
tokenizer.json, tokenizer_config.json) and training.json with the held-out loss.

    apt-get install bible-kjv && pip install torch transformers tokenizers
    python train.py --out . [--minutes 25] [--seed 1611]

Same seed, same library versions and the same number of steps give the same checkpoint; `--minutes` only chooses the
number of steps, which is written to training.json and can be passed back as `--steps`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import subprocess
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 512
VOCABULARY = 3072
BATCH = 16


def chapters() -> list[str]:
    """One string a chapter: a title line, then one verse a line."""
    raw = subprocess.run(["bible", "-f"], input="gen1:1-rev22:21\n", capture_output=True, text=True, check=True).stdout
    out: list[str] = []
    previous = ""
    for line in raw.splitlines():
        match = re.match(r"^(\w+?)(\d+):(\d+) (.*)$", line)
        if not match:
            continue
        book, chapter, _, text = match.groups()
        if f"{book} {chapter}" != previous:
            previous = f"{book} {chapter}"
            out.append("")
        out[-1] += text.strip() + "\n"
    return out


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--seed", type=int, default=1611)
    args.add_argument("--minutes", type=float, default=25)
    args.add_argument("--steps", type=int)
    a = args.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    random.seed(a.seed)
    torch.manual_seed(a.seed)

    texts = chapters()
    order = random.sample(range(len(texts)), len(texts))
    held = set(order[: len(order) // 20])
    train_text = [t for i, t in enumerate(texts) if i not in held]
    held_text = [t for i, t in enumerate(texts) if i in held]

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        train_text,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=CONTEXT
    )
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def stream(parts: list[str]) -> torch.Tensor:
        ids: list[int] = []
        for part in parts:
            ids += [bos, *bpe.encode(part).ids, eos]
        return torch.tensor(ids)

    data, held_ids = stream(train_text), stream(held_text)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        bos_token_id=bos, eos_token_id=eos, pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(data):,} training tokens, {len(held_ids):,} held out, {parameters:,} parameters", flush=True)

    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=2e-3, betas=(0.9, 0.95)
    )

    @torch.no_grad()
    def held_out_loss() -> float:
        model.eval()
        total = count = 0
        for i in range(0, len(held_ids) - CONTEXT, CONTEXT):
            x = held_ids[i : i + CONTEXT][None]
            total += model(x, labels=x).loss.item()
            count += 1
        model.train()
        return total / count

    def batch() -> torch.Tensor:
        at = torch.randint(len(data) - CONTEXT, (BATCH,))
        return torch.stack([data[i : i + CONTEXT] for i in at])

    def step() -> float:
        x = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x, labels=x).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    steps = a.steps
    if steps is None:  # time five steps on throw-away weights, then start afresh
        saved = {k: v.clone() for k, v in model.state_dict().items()}
        step()
        started = time.perf_counter()
        for _ in range(4):
            step()
        per_step = (time.perf_counter() - started) / 4
        model.load_state_dict(saved)
        optimizer.state.clear()
        torch.manual_seed(a.seed)
        steps = max(50, int(a.minutes * 60 / per_step))
        print(f"{per_step:.2f} s a step, {steps} steps", flush=True)
    for n in range(steps):
        warm = min(1.0, (n + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * n / steps)))
        loss = step()
        if n % 50 == 0 or n == steps - 1:
            print(f"step {n} loss {loss:.3f}", flush=True)
        if n % 250 == 249:
            print(f"held-out loss {held_out_loss():.4f}", flush=True)

    model.to(torch.bfloat16)
    loss_bf16 = held_out_loss()
    model.save_pretrained(a.out)
    tokenizer.save_pretrained(a.out)
    prompt = torch.tensor([[bos, *bpe.encode("In the beginning").ids]])
    sample = model.generate(prompt, max_new_tokens=80, do_sample=False)
    record = {
        "text": "King James Bible, by Debian's bible-kjv", "seed": a.seed, "steps": steps, "batch": BATCH, "context": CONTEXT,
        "parameters": parameters, "training_tokens": len(data), "held_out_tokens": len(held_ids),
        "held_out_loss_bfloat16": round(loss_bf16, 4), "torch": torch.__version__,
    }
    (a.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))
    print(tokenizer.decode(sample[0]))


if __name__ == "__main__":
    main()
