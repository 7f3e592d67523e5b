"""The programs that use toynn: training in the fused and the per_head layout, and the fused linear operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import toynn
from benchmarks.shapes import ADAM_EPS, BETA1, BETA2, LR, PEAK_SIZE, RMS_EPS, Shape
from toynn import AdamW, FromScratch, RecipeOptions, SmolLM2Config, TrainingBatch
from toynn import tinynn as nn
from toynn.llm.layouts import to_per_head


def version() -> str:
    info = toynn.build_info()
    features = info["cpu_features"]
    return f"toynn {toynn.__version__} on ggml {info['ggml_version']}, profile {info['profile']} ({features})"


class Training:
    """A model in memory. Each step trains on the next batch."""

    def __init__(self, shape: Shape, threads: int, *, layout: str, precision: str, moments: str) -> None:
        self._cfg = SmolLM2Config(
            vocab=shape.vocab, d_model=shape.d_model, n_heads=shape.n_heads, n_kv=shape.n_kv, d_ff=shape.d_ff,
            n_layers=shape.n_layers, ctx=shape.t_seq, rope_base=shape.rope_base, rms_eps=RMS_EPS,
        )  # fmt: skip
        self._fused, self._bf16_moments = layout == "fused", moments == "bf16"
        self._batches = []
        for ids, _ in shape.batches():
            batch = TrainingBatch(shape.vocab, shape.t_seq, shape.t_batch)
            batch.fill(ids)
            self._batches.append((batch.seq_ids, batch.targets if self._fused else batch.m_labels))
        self._positions = np.tile(np.arange(shape.t_seq, dtype=np.int32), shape.t_batch)
        self._adamw = AdamW(lr=LR, beta1=BETA1, beta2=BETA2, eps=ADAM_EPS, bias_correct=True)
        self._recipe = FromScratch()
        options = RecipeOptions(
            t_seq=shape.t_seq, t_batch=shape.t_batch, untied=shape.untied, n_threads=threads, layout=layout,
            precision=precision, moments=moments,
        )  # fmt: skip
        self._recipe.realize(self._cfg, options)
        self._n = 0

    def step(self) -> float:
        ids, wanted = self._batches[self._n % len(self._batches)]
        first = self._n == 0
        self._n += 1
        hp = self._adamw.hp(self._n)
        if self._fused:
            step = self._n if self._bf16_moments else None
            return self._recipe.fs_cache.train_step(ids, wanted, hp, reset_moments=first, step=step)[0]
        return self._recipe.step(ids, self._positions, wanted, hp, first)

    def save(self, folder: Path) -> None:
        """Write each weight of the fused layout to a file in the folder."""
        for name in self._recipe.fs_cache.weights:
            np.save(folder / f"{name}.npy", self._recipe.fs_cache.download_weight(name))

    def restart(self, folder: Path) -> None:
        """Start training again from the weights in the folder, with moments of zero."""
        for path in folder.glob("*.npy"):
            weight = {path.stem: np.load(path)}
            for name, values in (weight if self._fused else to_per_head(weight, self._cfg)).items():
                self._recipe.fs_cache.upload_weight(name, values)
        self._n = 0


class Matmul:
    def __init__(self, threads: int) -> None:
        self._session = s = nn.Session(0, threads)
        x = nn.tnn_input_2d_f32_persistent(s, PEAK_SIZE, PEAK_SIZE)
        w = nn.tnn_input_2d_f32_persistent(s, PEAK_SIZE, PEAK_SIZE)
        nn.tnn_finalize_weights(s)
        draw = np.random.default_rng(0)
        for tensor in (x, w):
            nn.upload_row_major(s, tensor, draw.standard_normal((PEAK_SIZE, PEAK_SIZE), dtype=np.float32))
        nn.tnn_realize(s, nn.tnn_fused_linear(s, x, [w]))

    def step(self) -> float:
        nn.tnn_compute(self._session)
        return 0.0

    def restart(self, folder: Path) -> None:
        raise NotImplementedError(f"a matrix product cannot restart from the weights in {folder.name}")
