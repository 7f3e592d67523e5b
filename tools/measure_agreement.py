"""Print the table of docs/interop.md: how closely llama.cpp and transformers agree with toynn, for each model shape.

python tools/measure_agreement.py
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paths import TESTS_SUPPORT

sys.path.insert(0, str(TESTS_SUPPORT))

from interop_models import SHAPES, VOCAB, decoder_of, logits_of, make
from llama_cpp import LlamaCpp
from toynn import Sampling, TinyNNValueError, generate
from toynn.interop import export_gguf, export_hf, import_gguf

IDS = np.random.default_rng(0).integers(0, VOCAB, 200).tolist()
GREEDY = 150


def relative(theirs: npt.NDArray[Any], ours: npt.NDArray[Any]) -> float:
    """Return the root mean square of the difference, divided by the root mean square of toynn's logits."""
    return float(np.sqrt(np.mean((theirs.astype(np.float64) - ours) ** 2) / np.mean(ours.astype(np.float64) ** 2)))


def llama_cpp_logits(path: Path) -> npt.NDArray[np.float32]:
    """Return the logits (T, vocab) of llama.cpp for IDS."""
    with LlamaCpp(path) as model:
        return model.feed(IDS)


def transformers_difference(name: str, folder: Path) -> str:
    """Return the largest difference between the logits of transformers and toynn, or "-" if the export is refused."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    model = make(name)
    try:
        export_hf(model, folder)
    except TinyNNValueError:
        return "-"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = theirs(torch.tensor([IDS])).logits[0].numpy()
    return f"{np.abs(logits - logits_of(model, IDS)).max():.1e}"


def main() -> None:
    print("| shape | largest logit | llama.cpp f32 | greedy tokens equal | transformers f32 | f16 | bf16 | q8_0 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model = make(name)
            ours = logits_of(model, IDS)
            export_gguf(model, folder / "f32.gguf")
            cells = [f"{np.abs(ours).max():.1f}", f"{np.abs(llama_cpp_logits(folder / 'f32.gguf') - ours).max():.1e}"]
            with decoder_of(model) as decoder, LlamaCpp(folder / "f32.gguf") as llama:
                text = list(generate(decoder, IDS[:5], Sampling.greedy(), GREEDY))
                equal = [a == b for a, b in zip(text, llama.greedy(IDS[:5], GREEDY), strict=True)]
            cells.append(f"{equal.index(False) if False in equal else len(equal)} of {GREEDY}")
            cells.append(transformers_difference(name, folder / "hf"))
            for dtype in ("f16", "bf16", "q8_0"):
                export_gguf(model, folder / "m.gguf", dtype, overwrite=True)
                theirs = llama_cpp_logits(folder / "m.gguf")
                rounded = logits_of(import_gguf(folder / "m.gguf"), IDS)
                cells.append(f"{relative(theirs, ours):.4f} ({relative(theirs, rounded):.4f})")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
