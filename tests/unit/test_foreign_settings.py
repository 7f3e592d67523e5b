"""The settings of an imported model are checked, also if a checkpoint with such settings was changed by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from interop_models import make
from toynn import TinyNNTypeError, TinyNNValueError
from toynn.model.foreign_settings import ForeignSettings
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"name": 1}, TinyNNTypeError, "name must be a str, got int"),
        ({"pad_id": -1}, TinyNNValueError, "pad_id must be an integer from 0"),
        ({"tokenizer_config": "{"}, TinyNNValueError, "tokenizer_config must be the text of a JSON object: "),
        (
            {"generation_config": "[]"},
            TinyNNValueError,
            "generation_config must be the text of a JSON object, got list",
        ),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ForeignSettings(**changes)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("other_eos_ids", [512], "other_eos_ids must be an integer from 0 to 511, got 512"),
        ("other_eos_ids", 7, "other_eos_ids must be a list"),
        ("foreign", {"nam": "x"}, r"unknown key 'foreign\.nam'; did you mean 'foreign\.name'"),
        ("foreign", {"generation_config": "x"}, "foreign: generation_config must be the text of a JSON object"),
    ],
)
def test_a_changed_checkpoint_is_refused_with_the_key(key: str, value: Any, says: str, tmp_path: Path) -> None:
    model = dataclasses.replace(make("tied"), other_eos_ids=(7,), foreign=ForeignSettings(name="Cat"))
    checkpoint = write_checkpoint(tmp_path / "run", model)
    back = load_checkpoint(checkpoint).model
    assert (back.other_eos_ids, back.end_ids, back.foreign.name) == ((7,), (0, 7), "Cat")
    path = checkpoint / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(TinyNNValueError, match=says):
        load_checkpoint(checkpoint)


def test_a_model_without_foreign_settings_is_stored_as_before(tmp_path: Path) -> None:
    meta = json.loads((write_checkpoint(tmp_path / "run", make("tied")) / "meta.json").read_text())
    assert not {"foreign", "other_eos_ids"} & meta.keys()
