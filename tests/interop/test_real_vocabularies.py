"""The vocabularies of Mistral, which the package mistral-common contains, give the same ids in all programs."""

from __future__ import annotations

import base64
import importlib
import json
import random
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from interop_models import TEXTS, make
from llama_cpp import LlamaCpp
from sentencepiece_models import PARTS, model_of, random_texts
from toynn.interop import export_gguf, import_gguf
from toynn.interop.hf_tokenizer_model import converted_model
from toynn.interop.pre_tokenizers import PRE_TOKENIZERS
from toynn.interop.sentencepiece_bpe import SentencePieceBpe, read_sentencepiece, write_sentencepiece
from toynn.interop.sentencepiece_model import parsed_model

pytestmark = [pytest.mark.slow, pytest.mark.other_programs, pytest.mark.oracle_torch]
PACKAGE = "mistral-common==1.13.1"
RUNS = [f"{' ' * n}x{' ' * (n // 2)}y" for n in range(70)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the vocabularies, downloaded by pip."""
    folder = tmp_path_factory.mktemp("mistral")
    arguments = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot download {PACKAGE}: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / "mistral_common" / "data"


def test_texts_have_the_ids_of_sentencepiece_and_llama_cpp(files: Path, tmp_path: Path) -> None:
    content = (files / "tokenizer.model.v1").read_bytes()
    converted = converted_model(content, {}, {}, 32000)
    lists = read_sentencepiece(converted, 32000)
    assert write_sentencepiece(lists) == converted
    model = model_of(lists)
    export_gguf(model, tmp_path / "m.gguf")
    assert import_gguf(tmp_path / "m.gguf").tokenizer == converted
    ours = Tokenizer.from_str(converted.decode())
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    with LlamaCpp(tmp_path / "m.gguf") as third:
        for text in [*TEXTS, *RUNS, *random_texts(2000)]:
            ids = ours.encode(text).ids
            assert ids == third.tokenize(text), text
            if not any(token in text for token in ("<s>", "</s>", "<unk>")):
                assert ids[1:] == theirs.encode(text), text


@pytest.mark.parametrize("name", ["240216.model.v2", "240323.model.v3", "241114.model.v7"])
def test_the_scores_of_each_vocabulary_become_merges(name: str, files: Path, tmp_path: Path) -> None:
    """Texts with the control tokens of conversations have the ids of llama.cpp."""
    model = parsed_model((files / f"mistral_instruct_tokenizer_{name}").read_bytes(), 32768)
    lists = SentencePieceBpe(model.tokens, model.scores, model.kinds, before=[1])
    content = write_sentencepiece(lists)
    export_gguf(model_of(lists), tmp_path / "m.gguf")
    assert import_gguf(tmp_path / "m.gguf").tokenizer == content
    ours, pick = Tokenizer.from_str(content.decode()), random.Random(0)
    special = [token for token in model.tokens if token.startswith("[")][:40]
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        for _ in range(500):
            text = "".join(pick.choices([*PARTS, "[INST]", "[/INST] ", *special], k=20))
            assert ours.encode(text).ids == theirs.tokenize(text), text


def test_the_rules_of_tekken_are_those_of_its_vocabulary(files: Path) -> None:
    described = json.loads((files / "tekken_240911.json").read_text())
    (split, _) = PRE_TOKENIZERS["tekken"].rules["pretokenizers"]
    assert split["pattern"]["Regex"] == described["config"]["pattern"]


def joined(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Return the ids of a word. Of all pairs of neighbours that form a token, the pair with the lowest rank is joined
    first.
    """
    if word in ranks:
        return [ranks[word]]
    parts = [word[i : i + 1] for i in range(len(word))]
    while places := [i for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks]:
        at = min(places, key=lambda i: ranks[parts[i] + parts[i + 1]])
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]


def test_tekken_has_the_ids_of_its_ranks_and_of_llama_cpp(files: Path, tmp_path: Path) -> None:
    """The test uses the first 20,000 tokens by rank, which also form a complete vocabulary."""
    # the package regex is another engine for the pattern, and is installed with transformers
    regex = importlib.import_module("regex")
    described = json.loads((files / "tekken_240911.json").read_text())
    pattern = regex.compile(described["config"]["pattern"])
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in described["vocab"][:20000]}
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    name = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    text_of = {token: "".join(name[byte] for byte in token) for token in ranks}
    merges = [[text_of[token[:i]], text_of[token[i:]]] for token in ranks for i in range(1, len(token))
              if token[:i] in ranks and token[i:] in ranks]  # fmt: skip
    model = Tokenizer.from_str(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": PRE_TOKENIZERS["tekken"].rules,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "ignore_merges": True, "merges": merges,
                  "vocab": {text_of[token]: rank for token, rank in ranks.items()}},
    }))  # fmt: skip
    content = model.to_str().encode()
    small = make("tied", tokens=content, vocab=20000, d_model=32, n_heads=2, n_kv=2, n_layers=1)
    export_gguf(small, tmp_path / "m.gguf")
    back = Tokenizer.from_str((import_gguf(tmp_path / "m.gguf").tokenizer or b"").decode())
    with LlamaCpp(tmp_path / "m.gguf") as third:
        for text in [*TEXTS, *RUNS, *random_texts(500)]:
            ids = back.encode(text, add_special_tokens=False).ids
            assert ids == [token for word in pattern.findall(text) for token in joined(word.encode(), ranks)], text
            cased = any(one > "\x7f" and unicodedata.category(one) in ("Lu", "Ll", "Lt") for one in text)
            if not cased and not any(unicodedata.category(one)[0] == "M" for one in text):
                assert ids == third.tokenize(text), text
