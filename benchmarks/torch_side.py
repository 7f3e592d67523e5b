"""The programs that use PyTorch: eager training, compiled training, and a matrix product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shapes import ADAM_EPS, BETA1, BETA2, LR, PEAK_SIZE, Shape
from benchmarks.torch_llama import Llama


def prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def version() -> str:
    return f"PyTorch {torch.__version__} with {torch.backends.cpu.get_cpu_capability()} kernels"


class Training:
    """A model in memory. Each step trains on the next batch."""

    def __init__(self, shape: Shape, *, compiled: bool, in_bf16: bool) -> None:
        size = (shape.t_batch, shape.t_seq)
        self._batches = [(torch.tensor(ids).view(size), torch.tensor(wanted)) for ids, wanted in shape.batches()]
        self._model = Llama(shape)
        self._in_bf16 = in_bf16
        self._loss: Any = torch.compile(self._model, dynamic=False) if compiled else self._model
        self._start()

    def _start(self) -> None:
        betas = (BETA1, BETA2)
        self._adamw = torch.optim.AdamW(
            self._model.parameters(), lr=LR, betas=betas, eps=ADAM_EPS, weight_decay=0.0, fused=True
        )
        self._n = 0

    def step(self) -> float:
        ids, targets = self._batches[self._n % len(self._batches)]
        self._n += 1
        self._adamw.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
            loss = self._loss(ids, targets)
        loss.backward()
        self._adamw.step()
        return float(loss.item())

    def restart(self, folder: Path) -> None:
        """Start training again from the weights of toynn in the folder, with moments of zero."""
        self._model.load(lambda name: np.load(folder / f"{name}.npy"))
        self._start()


class Matmul:
    def __init__(self) -> None:
        self._x, self._w = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
        self._out = torch.empty(PEAK_SIZE, PEAK_SIZE)

    def step(self) -> float:
        with torch.no_grad():
            torch.matmul(self._x, self._w.T, out=self._out)
        return 0.0

    def restart(self, folder: Path) -> None:
        raise NotImplementedError(f"a matrix product cannot restart from the weights in {folder.name}")
