"""toynn refuses tokenizer files that would make the tokenizers library abort, panic or run endlessly."""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import toynn
from interop_models import make, tokenizer
from toynn import TinyNNValueError, load
from toynn.storage.checkpoint import write_checkpoint
from toynn.text.tokenizer_json import parsed_tokenizer, text_of, token_ids


def described(**parts: Any) -> bytes:
    return json.dumps({**json.loads(tokenizer()), **parts}).encode()


def charsmap(content: bytes) -> dict[str, str]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def nested(rule: dict[str, Any], n: int) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [rule] * n}


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
REFUSED = {
    "a table of 4 GiB": ({"normalizer": charsmap(b"\xff\xff\xff\xff\0\0\0\0")}, "table should have 4294967295 bytes"),
    "no table": ({"normalizer": charsmap(b"")}, "its table should have"),
    "an empty table": ({"normalizer": charsmap(b"\0\0\0\0")}, "its table should have 0 bytes"),
    "a table that points outside": (
        {"normalizer": charsmap(struct.pack("<II", 4, 0) + b"x\0")}, "which has only 1 entries",
    ),
    "texts that are not UTF-8": (
        {"normalizer": charsmap(struct.pack("<I", 1024) + bytes(1024) + b"\xff\0")}, "texts are not UTF-8",
    ),
    "in a sequence": (
        {"normalizer": nested(nested(charsmap(b"\xff\xff\xff\xff"), 1), 1)}, "table should have 4294967295 bytes",
    ),
    "rules that lengthen": ({"normalizer": nested(DOUBLING, 9)}, r"the normalizer can make a text 1e\+18 times as"),
    "a decoder that lengthens": (
        {"decoder": {"type": "Sequence", "decoders": [DOUBLING] * 5}}, r"the decoder can make a text 1e\+10 times",
    ),
    "very many rules": ({"normalizer": nested({"type": "NFC"}, 1000)}, "at most 64 rules, but has 1000"),
    "a long text": (
        {"normalizer": {"type": "Prepend", "prepend": "x" * 100_000}}, "must have .*, but has 100000",
    ),
    "a template without the text": (
        {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}},
        r"must have exactly 1 place for a text \(Sequence\), but has 0",
    ),
    "a chunk of length 0": ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "must have a length of at least"),
    "an id of 4 billion": (
        {"model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}, "but the largest id is 4294967295",
    ),
}  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize("name", REFUSED)
def test_a_tokenizer_that_would_abort_the_process_is_refused(name: str) -> None:
    parts, says = REFUSED[name]
    with pytest.raises(TinyNNValueError, match=says):
        parsed_tokenizer(described(**parts))


def test_a_hostile_tokenizer_does_not_end_a_process_with_little_memory(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(described(**REFUSED["a table of 4 GiB"][0]))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from toynn.text.tokenizer_json import parsed_tokenizer\n"
        "try: parsed_tokenizer(open(sys.argv[1], 'rb').read())\n"
        "except ValueError as error: print(type(error).__name__)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "t.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "FileFormatError\n"), done.stderr


STRIP = {"type": "Strip", "content": " ", "start": 300, "stop": 300}
BYTES = {"type": "ByteLevel", "use_regex": True, "add_prefix_space": True, "trim_offsets": True}
PANICS = {"type": "Sequence", "decoders": [BYTES, STRIP]}


def test_a_decoder_that_panics_raises_a_value_error() -> None:
    model = parsed_tokenizer(described(decoder=PANICS))
    with pytest.raises(TinyNNValueError, match="ids: the tokenizer cannot decode them"):
        text_of(model, token_ids(model, ["   "])[0])


def test_a_panic_gives_one_line_and_exit_status_2(tmp_path: Path) -> None:
    decoder = {**PANICS, "decoders": [BYTES, {**STRIP, "content": "T", "start": 0}]}
    run = tmp_path / "run"
    write_checkpoint(run, dataclasses.replace(make("tied"), tokenizer=described(decoder=decoder)))
    with load(run, n_threads=1) as model, pytest.raises(TinyNNValueError, match="the tokenizer cannot decode them"):
        model.generate("T", greedy=True)
    done = toynn("generate", str(run), "-p", "T", "--greedy")
    assert done.returncode == 2
    assert done.stderr.startswith("toynn: ids: the tokenizer cannot decode them: index out of bounds"), done.stderr
    assert done.stderr.count("\n") == 1
