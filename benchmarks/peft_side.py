"""The program that trains an adapter with PEFT on a model of transformers, in float32 or with bfloat16 autocast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from benchmarks.shapes import ADAM_EPS, BETA1, BETA2, LR, Shape


def version() -> str:
    return f"PEFT {peft.__version__} on transformers {transformers.__version__}"


class PeftTraining:
    """A model in memory with an adapter. Each step trains on the next batch."""

    def __init__(self, shape: Shape, folder: Path, *, in_bf16: bool) -> None:
        size = (shape.t_batch, shape.t_seq)
        self._batches = [torch.tensor(ids).view(size) for ids, _ in shape.batches()]
        base: Any = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)
        base.config.use_cache = False
        self._model: Any = peft.PeftModel.from_pretrained(base, folder / "peft", is_trainable=True)
        self._in_bf16, self._n = in_bf16, 0
        trained = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._adamw = torch.optim.AdamW(
            trained, lr=LR, betas=(BETA1, BETA2), eps=ADAM_EPS, weight_decay=0.0, fused=True
        )

    def step(self) -> float:
        ids = self._batches[self._n % len(self._batches)]
        self._n += 1
        self._adamw.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
            loss = self._model(input_ids=ids, labels=ids).loss
        loss.backward()
        self._adamw.step()
        return float(loss.item())

    def restart(self, folder: Path) -> None:
        raise NotImplementedError(f"adapters are compared from their start, not from the weights in {folder.name}")
