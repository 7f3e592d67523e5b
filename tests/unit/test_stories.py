"""The tokens in the repository: the script reproduces them, and the window of the smoke examples has 26 labels."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

import pytest

from paths import EXAMPLES

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tokenize_stories", EXAMPLES / "tokenize_stories.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokens() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EXAMPLES / "data" / "tokens.json").read_text(encoding="utf-8"))
    return loaded


def test_the_script_reproduces_the_files_in_the_repository(script: ModuleType) -> None:
    for name, content in script.make().items():
        made, stored = json.loads(content), json.loads((EXAMPLES / "data" / name).read_text(encoding="utf-8"))
        # the installed version of the tokenizers library may differ from the recorded version
        made.pop("tokenizer", None), stored.pop("tokenizer", None)
        assert made == stored


def test_the_tokens_decode_to_the_stories(script: ModuleType, tokens: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(EXAMPLES / "data" / "tokenizer.json"))
    decoded = tokenizer.decode(tokens["stream"], skip_special_tokens=False)
    text = (EXAMPLES / "data" / "stories.txt").read_text(encoding="utf-8")
    assert decoded.split(script.END_OF_STORY)[:-1] == script.stories_of(text)


def test_every_id_is_below_627(tokens: dict[str, Any]) -> None:
    assert tokens["vocab_size"] == 627
    assert all(0 <= i < 627 for i in tokens["stream"])


def test_the_smoke_window_is_the_first_with_26_distinct_labels(tokens: dict[str, Any]) -> None:
    stream, offset = tokens["stream"], tokens["smoke_window"]["offset"]
    distinct = [len({*stream[at + 1 : at + 32], stream[at + 31]}) for at in range(offset + 1)]
    assert distinct.index(26) == offset
    assert tokens["smoke_window"]["ids"] == stream[offset : offset + 32]
