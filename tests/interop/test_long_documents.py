"""A long document gets the token ids of the whole text, although it is encoded in parts."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from interop_models import tokenizer
from sentencepiece_models import lists_of, trained
from toynn.data.prepare import prepare
from toynn.interop.hf_tokenizer_model import converted_model
from toynn.interop.pre_tokenizers import PRE_TOKENIZERS
from toynn.interop.sentencepiece_bpe import PREFIXES, SPACE, metaspace, write_sentencepiece
from toynn.text import documents as dividing
from toynn.text.documents import END_OF_TEXT, PIECE, Piece, encoded, packed_ids
from toynn.text.sentencepiece_cuts import has_sentencepiece_rules
from toynn.text.tokenizer_json import token_starts

pytestmark = pytest.mark.other_programs

SYMBOLS = {"user_defined_symbols": ("<|x|>", "\n", "\n\n", "[A]")}
LINES = [
    "The cat sat on the mat.", "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e", "\u4e16\u754c cat",
    "It's a warm day,  isn't it?", "[A] mat <|x|>[A]", "\u041f\u0440\u0438\u0432\u0435\u0442 \U0001f600", "1984",
    "the", "a",
]  # fmt: skip
INDENTED = ["  They said", " cat", "\tday", "", "", "</s>the cat</s>", "<s>", "</s> the", "ends with spaces  "]
ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
DOUBLE = {"type": "Replace", "pattern": {"Regex": rf"\A{SPACE}"}, "content": SPACE * 2}
AFTER_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def text_of(lines: list[str], size: int, seed: int = 0) -> str:
    """Return a text of random lines that is a little longer than `size` bytes. It begins with a letter."""
    pick, parts, n = random.Random(seed), ["The text\n"], 0
    while n <= size:
        parts.append(pick.choice(lines) + "\n")
        n += len(parts[-1].encode())
    return "".join(parts)


def with_rules(normalizer: Any, pre_tokenizer: Any, **options: Any) -> bytes:
    described = json.loads(write_sentencepiece(lists_of(trained(**options))))
    return json.dumps({**described, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}).encode()


def sequence(key: str, *rules: Any) -> dict[str, Any]:
    return {"type": "Sequence", key: list(rules)}


def around(content: bytes) -> bytes:
    """Return the tokenizer with a begin token and an end token around each text."""
    described = json.loads(content)
    described["post_processor"] = json.loads(
        write_sentencepiece(lists_of(trained(), before=[1], after=[2]))
    )["post_processor"]  # fmt: skip
    return json.dumps(described).encode()


def space_rules() -> dict[str, bytes]:
    """Return SentencePiece tokenizers, one for each rule for spaces that toynn can read."""
    found = {}
    for name, options in (("plain", {}), ("symbols", SYMBOLS)):
        for prefix in PREFIXES:
            found[f"{prefix}, {name}"] = write_sentencepiece(lists_of(trained(**options), prefix=prefix))
        for legacy in (True, False):
            found[f"tokenizer.model, {name}, legacy {legacy}"] = converted_model(
                trained(**options), {"legacy": legacy}, {}, 710
            )
        no_prefix = trained(**options, add_dummy_prefix=False)
        found[f"tokenizer.model, {name}, no prefix"] = converted_model(no_prefix, {}, {}, 710)
    spaces = trained(remove_extra_whitespaces=True)
    found["tokenizer.model, removed spaces"] = converted_model(spaces, {}, {}, 710)
    across = {"split_by_whitespace": False, "split_by_unicode_script": False, "vocab_size": 900}
    found["each, pieces across words"] = write_sentencepiece(lists_of(trained(**across)))
    few = {"character_coverage": 0.98, "vocab_size": 500}
    found["each, few characters"] = write_sentencepiece(lists_of(trained(**few)))
    found["each, of transformers"] = with_rules(sequence("normalizers", ESCAPE, DOUBLE), metaspace("always"))
    found["first, of transformers"] = with_rules(ESCAPE, metaspace("first"))
    found["always, of transformers"] = with_rules(ESCAPE, metaspace("always"))
    found["none, with a split"] = with_rules(ESCAPE, AFTER_SPACES)
    found["none, of transformers"] = with_rules(ESCAPE, metaspace("never"))
    found["none, by metaspace"] = with_rules(None, metaspace("never"))
    return {name: around(content) for name, content in found.items()}


RULES = space_rules()
# With these tokenizers, a line end is an added token with a space after it, and decoding does not remove this space.
# So `prepare` refuses these tokenizers for texts of several lines.
REFUSED = ("each, symbols", "always, symbols")


def prepared(path: Path, text: str, content: bytes, eos: str, validation: float = 0) -> list[int]:
    """Return all ids that `prepare` writes, the ids for training first."""
    (path / "t.txt").write_bytes(text.encode())
    meta = prepare([path / "t.txt"], path / "data", tokenizer=content, eos=eos, separator=END_OF_TEXT,
                   validation=validation)  # fmt: skip
    files = [np.fromfile(path / "data" / f"{name}.bin", dtype=meta.dtype) for name in ("train", "validation")]
    assert bool(files[1].size) is (validation > 0)
    ids: list[int] = np.concatenate(files).tolist()
    return ids


@pytest.mark.parametrize("validation", [0, 0.3])
@pytest.mark.parametrize("name", [name for name in RULES if name not in REFUSED])
def test_a_long_document_has_the_ids_of_the_whole_text(name: str, validation: float, tmp_path: Path) -> None:
    whole = Tokenizer.from_str(RULES[name].decode())
    lines = [line for line in LINES if "  " not in line] if name.endswith("removed spaces") else LINES
    text = text_of(lines, PIECE)
    ids = prepared(tmp_path, text, RULES[name], "</s>", validation)
    assert ids == [*whole.encode(text, add_special_tokens=False).ids, 2]


@pytest.mark.parametrize("name", RULES)
def test_special_tokens_and_spaces_in_a_long_document_have_the_ids_of_the_whole_text(name: str) -> None:
    tokens = Tokenizer.from_str(RULES[name].decode())
    texts = [text_of([*LINES, *INDENTED], 4 * PIECE, seed) for seed in range(2)]
    joined = "".join(f"{text}{END_OF_TEXT}\n" for text in texts)
    expected = [i for text in texts for i in [*tokens.encode(text, add_special_tokens=False).ids, 2]]
    assert packed_ids(tokens, joined, [END_OF_TEXT], 2).ids == expected


@pytest.mark.parametrize("name", RULES)
def test_every_piece_of_a_document_has_the_ids_of_the_whole_text(name: str) -> None:
    """The pieces end anywhere, also inside words, special tokens and runs of spaces."""
    tokens = Tokenizer.from_str(RULES[name].decode())
    for seed in range(30):
        text = text_of([*LINES, *INDENTED], 300, seed)
        pick = random.Random(seed)
        places = [0, *sorted(pick.sample(range(1, len(text)), 20)), len(text)]
        parts = [Piece(0, a, text[a:b], b == len(text)) for a, b in itertools.pairwise(places)]
        found = list(encoded(tokens, parts))
        assert [piece for piece, _ in found] == parts
        whole = tokens.encode(text, add_special_tokens=False)
        assert [i for _, ids in found for i in ids] == whole.ids, text


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_long_document_of_a_byte_level_tokenizer_has_the_ids_of_the_whole_text(pre: str, tmp_path: Path) -> None:
    content = tokenizer(pre)
    whole = Tokenizer.from_str(content.decode())
    assert not has_sentencepiece_rules(whole)
    text = text_of(LINES, 2 * PIECE)
    end = whole.token_to_id(END_OF_TEXT)
    assert prepared(tmp_path, text, content, END_OF_TEXT) == [*whole.encode(text, add_special_tokens=False).ids, end]


def test_a_long_document_is_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokenizer.from_str(RULES["each, symbols"].decode())
    text = text_of(LINES, 4 * PIECE)
    given: list[int] = []

    def watched(tokenizer: Tokenizer, texts: list[str], name: str) -> Any:
        given.extend(map(len, texts))
        return token_starts(tokenizer, texts, name)

    monkeypatch.setattr(dividing, "token_starts", watched)
    packed_ids(tokens, text, [], None)
    assert len(given) == 4
    assert sum(given) < len(text) + 100


def test_a_text_without_a_place_for_a_cut_is_encoded_in_parts_of_limited_size(monkeypatch: pytest.MonkeyPatch) -> None:
    content = converted_model(trained(normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True), {}, {}, 710)
    tokens = Tokenizer.from_str(content.decode())
    parts = [Piece(0, 8 * i, "The cat\n", i == 9) for i in range(10)]
    whole = tokens.encode("The cat\n" * 10, add_special_tokens=False).ids
    assert [i for _, ids in encoded(tokens, parts) for i in ids] == whole
    monkeypatch.setattr(dividing, "_LONGEST_LINE", 40)
    half = tokens.encode("The cat\n" * 5, add_special_tokens=False).ids
    assert [i for _, ids in encoded(tokens, parts) for i in ids] == half * 2
