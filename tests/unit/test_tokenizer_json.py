"""Any tokenizer.json gives a tokenizer or a TinyNNValueError, and the vocabulary contains every id."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from interop_models import TRAINED_ON, make, tokenizer
from toynn import TinyNNValueError, load
from toynn.data import PackedTokens
from toynn.data.prepare import prepare
from toynn.storage.checkpoint import write_checkpoint
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer

pytestmark = pytest.mark.quick


def panicking() -> bytes:
    """Return a tokenizer.json that makes the library's Rust code panic. Python then raises a BaseException."""
    described = json.loads(tokenizer())
    described["model"]["continuing_subword_prefix"] = "#" * 100
    return json.dumps(described).encode()


def with_holes(last: int) -> bytes:
    """Return a tokenizer whose last token has the id `last`, far above the ids of the other tokens."""
    described = json.loads(tokenizer())
    described["model"]["vocab"]["zz"] = last
    described["model"]["merges"].append(["z", "z"])
    return json.dumps(described).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff", b"[" * 200000, panicking(), tokenizer()[:-20], tokenizer().replace(b'"BPE"', b'"BPF"')],
    ids=["nothing", "empty", "no UTF-8", "deep", "a panic", "cut", "another model"],
)
def test_an_invalid_tokenizer_json_is_refused_everywhere(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"it is not a tokenizer\.json: ."):
        parsed_tokenizer(content)
    (tmp_path / "tokenizer.json").write_bytes(content)
    (tmp_path / "text.txt").write_text("The cat")
    with pytest.raises(TinyNNValueError, match=r"tokenizer\.json cannot be used"):
        prepare([tmp_path / "text.txt"], tmp_path / "data", tokenizer=tmp_path / "tokenizer.json")
    write_checkpoint(tmp_path / "run", dataclasses.replace(make("tied"), tokenizer=content))
    with pytest.raises(TinyNNValueError, match=r"the tokenizer of .* cannot be used"):
        load(tmp_path / "run", n_threads=1)


def test_the_vocabulary_size_includes_the_highest_id(tmp_path: Path) -> None:
    """The tokenizer has 393 tokens, one of them with the id 70000, so 16 bits are not enough for packed tokens."""
    content = with_holes(70000)
    assert ids_needed(parsed_tokenizer(content)) == 70001
    (tmp_path / "tokenizer.json").write_bytes(content)
    (tmp_path / "text.txt").write_text("".join(TRAINED_ON) + "zzz")
    meta = prepare([tmp_path / "text.txt"], tmp_path / "data", tokenizer=tmp_path / "tokenizer.json", validation=0.0)
    assert (meta.vocab_size, meta.dtype) == (70001, "uint32")
    assert 70000 in np.asarray(PackedTokens.open(tmp_path / "data", "train").tokens)
    write_checkpoint(tmp_path / "run", dataclasses.replace(make("tied"), tokenizer=content))
    with pytest.raises(TinyNNValueError, match="needs 70001 ids, but the vocabulary of the model has only 512"):
        load(tmp_path / "run", n_threads=1)
