"""The sources of training data: containers, formats, compression, broken and hostile content, bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from processes import run_with_toynn
from toynn import FileFormatError, TinyNNValueError
from toynn.data.sources import Chat, Completion, Sample, Skipped, Text, open_source
from toynn.data.sources.compressed import parts_of_file
from toynn.data.sources.items import LONGEST_ITEM, Item
from toynn.data.sources.json_array import json_array
from toynn.data.sources.json_lines import json_lines
from toynn.data.sources.records import sample_of
from toynn.data.sources.strict_json import parsed

MESSAGES = [{"role": "user", "content": "a \u00e9"}, {"role": "assistant", "content": "b"}]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def samples_of(path: Path, skip: int = 0, **options: Any) -> list[tuple[int, Sample]]:
    return list(open_source(path, **options).samples(Skipped(skip)))


def in_parts(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


# ---- containers ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("a\"\\[]{},:\n\u00e9\U0001f350", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\"\\}]", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.lists(st.dictionaries(st.text('ab,]}"', max_size=4), JSON, max_size=3), max_size=5)


@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_an_array_and_lines_in_any_parts_have_the_values_that_json_reads(
    objects: list[dict[str, Any]], size: int, indent: int | None, ascii_only: bool
) -> None:
    array = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    found = list(json_array(in_parts(array, size)))
    assert [item.value for item in found] == objects
    assert all(array.split(b"\n")[item.place - 1].lstrip().lstrip(b"[").lstrip().startswith(b"{") for item in found)
    lines = "\r\n\n".join(json.dumps(one, ensure_ascii=ascii_only) for one in objects).encode()
    assert list(json_lines(in_parts(lines, size))) == [Item(2 * i + 1, one) for i, one in enumerate(objects)]


@given(st.binary(max_size=60) | st.text('[]{},":\\ \n1a', max_size=40).map(str.encode), st.integers(1, 7))
@example(b"]\n\0", 1)
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_values_or_reasons(content: bytes, size: int) -> None:
    for read in (json_array, json_lines):
        whole = list(read([content]))
        assert whole == list(read(in_parts(content, size)))
        assert all((item.value is None) == bool(item.reason) for item in whole)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("content", "places"),
    [
        ('[{"a": 1}, {"a": 2}', [1, -1]),
        ('[{"a": 1},\n {"a": },\n {"a": 3}]', [1, -2, 3]),
        ('[{"a": 1},]', [1, -1]),
        ('[{"a": 1},,{"a": 1}]', [1, -1, 1]),
        ('[\n1, {"a": 1}] x', [-2, 2, -2]),
        ('[{"a": "b]}"}]', [1]),
        ('[{"a": [}]', [-1]),
        ("[]", []),
    ],
)
def test_broken_elements_are_reported_with_their_lines(content: str, places: list[int]) -> None:
    found = [item.place if item.value is not None else -item.place for item in json_array([content.encode()])]
    assert found == places


@pytest.mark.quick
def test_a_broken_line_is_reported_with_file_line_and_reason(tmp_path: Path) -> None:
    good = json.dumps({"text": "a"})
    broken = {
        "{'text': 'a'}": "the text is not JSON: Expecting property name enclosed in double quotes at character 1",
        '{"text": "a"': "the text is not JSON: Expecting ',' delimiter at character 12",
        "[1]": "the line must be a JSON object, but is '[1]'",
        '{"text": NaN}': "NaN is not a JSON number",
        '{"text": -Infinity}': "-Infinity is not a JSON number",
        '{"text": "a", "text": "b"}': "the key 'text' occurs more than once in an object",
        '{"text": "\\ud800"}': "'text' is not Unicode text: surrogates not allowed at character 0",
        '{"text": 1}': "'text' must be a text, got 1",
        '{"words": 1}': "the sample has no field 'text'; its fields are 'words'",
        '{"text": ' + "[" * 200_000 + "1" + "]" * 200_000 + "}": "lists and objects are nested more than 100 deep",
        '{"text": ' + "1" * 5000 + "}": "toynn cannot read this JSON: Exceeds the limit",
        '{"text": "' + "a" * LONGEST_ITEM + '"}': f"the line has more than {LONGEST_ITEM} bytes",
    }
    for line, reason in broken.items():
        path = written(tmp_path / "x.jsonl", f"{good}\n\n{line}\n{good}\n")
        with pytest.raises(FileFormatError) as error:
            samples_of(path)
        assert str(error.value).startswith(f"{path}, line 3: {reason}")
        assert str(error.value).endswith("; to ignore N such samples, use skip_bad=N")
        assert samples_of(path, skip=1) == [(1, Text("a")), (4, Text("a"))]
    path = written(tmp_path / "x.jsonl", good.encode() + b'\n{"text": "\xff"}\n')
    with pytest.raises(FileFormatError, match=r"x\.jsonl, line 2: byte 10 is 0xff, which is not UTF-8"):
        samples_of(path)


def test_more_broken_lines_than_tolerated_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", '{"text": "a"}\n{\n{\n{"text": 1}\n')
    with pytest.raises(
        FileFormatError,
        match=r"^more than skip_bad = 2 samples are broken, so repair .*; the last broken sample is .*, line 4: ",
    ):
        samples_of(path, skip=2)
    skipped = Skipped(3)
    assert len(list(open_source(path).samples(skipped))) == 1
    assert (skipped.n, len(skipped.first)) == (3, 3)


@pytest.mark.quick
def test_strict_json_agrees_with_json_up_to_the_depth() -> None:
    nested = "[" * 99 + "{}" + "]" * 99
    assert parsed(nested.encode()) == json.loads(nested)
    many = json.dumps({"a": [[1], {"b": '[[[["{'}] * 300})
    assert parsed(many.encode()) == json.loads(many)
    with pytest.raises(TinyNNValueError, match="more than 100 deep"):
        parsed(b'{"a": ' + nested.encode() + b"}")


# ---- compression and Parquet ----


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [{"messages": [*MESSAGES, {"role": "user", "content": str(i)}]} for i in range(300)]


def test_every_container_gives_the_same_samples(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, rows)).encode()
    two_frames = zstandard.compress(lines[:700]) + b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstandard.compress(lines[700:])
    contents = {
        "lines": lines,
        "bom": b"\xef\xbb\xbf" + lines,
        "array": json.dumps(rows, indent=2).encode(),
        "gzip": gzip.compress(lines[:900]) + gzip.compress(lines[900:]),
        "zstd": two_frames,
        "array in gzip": gzip.compress(json.dumps(rows).encode()),
    }
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet", row_group_size=70)
    for name, content in contents.items():
        written(tmp_path / name, content)
    expected = [Chat(row["messages"]) for row in rows]
    for name in (*contents, "parquet"):
        assert [sample for _, sample in samples_of(tmp_path / name)] == expected, name
    assert [place for place, _ in samples_of(tmp_path / "parquet")] == list(range(1, 301))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_damaged_compressed_file_is_refused(pack: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    whole = pack("\n".join(map(json.dumps, rows)).encode())
    for damaged in (whole[:-9], whole[: len(whole) // 2], whole[:40] + b"\0\xff\0\xff" + whole[44:]):
        path = written(tmp_path / "x", damaged)
        with pytest.raises(FileFormatError, match=r"x is damaged: \S"):
            list(parts_of_file(path))


def test_a_file_that_unpacks_to_far_too_much_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=31)
    line = json.dumps({"text": "a" * 1000}).encode() + b"\n"
    content = b"".join(packer.compress(line * 1000) for _ in range(400)) + packer.flush()
    for name, packed in (("gz", content), ("zst", zstandard.compress(bytes(1 << 29)))):
        path = written(tmp_path / name, packed)
        sizes: list[int] = []
        with pytest.raises(FileFormatError, match="unpacks to more than 400 times its size"):
            sizes.extend(len(part) for part in parts_of_file(path))
        assert max(sizes) < 1 << 26
        assert sum(sizes) >= (1 << 28) - (1 << 26)


def test_a_zstandard_file_with_a_huge_window_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    buffer = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(buffer, closefd=False) as writer:
        writer.write(b"a" * 100)
    with pytest.raises(FileFormatError, match=r"x is damaged: .*memory"):
        list(parts_of_file(written(tmp_path / "x", buffer.getvalue())))


def test_parquet_drops_keys_without_value_and_reports_wrong_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [{"prompt": "a", "completion": "b", "other": 1}, {"prompt": None, "completion": "c", "other": 2}]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert samples_of(path, skip=1) == [(1, Completion("a", "b"))]
    with pytest.raises(FileFormatError, match=r"x\.parquet, row 2: the sample has no field 'prompt'"):
        samples_of(path)
    parquet.write_table(pa.table({"text": [b"\xff", b"a"]}).cast(pa.schema({"text": pa.binary()})), path)
    with pytest.raises(FileFormatError, match=r"x\.parquet, row 1: 'text' must be a text, got b'"):
        samples_of(path)
    parquet.write_table(pa.table({"words": ["a"]}), path)
    with pytest.raises(FileFormatError, match="their fields are 'words', but must include one of these: 'messages'; "):
        open_source(path)
    assert samples_of(path, text_field="words") == [(1, Text("a"))]


def test_a_damaged_parquet_file_is_refused(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "x"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-20], b"PAR1" + bytes(100) + b"PAR1"):
        written(path, damaged)
        with pytest.raises(FileFormatError, match="x is damaged: "):
            samples_of(path)


# ---- formats ----

RECORDS: dict[str, tuple[dict[str, Any], Sample]] = {
    "messages": ({"messages": MESSAGES, "tools": '[{"name": "f"}]', "id": 3}, Chat(MESSAGES, [{"name": "f"}])),
    "conversations": (
        {"system": "s", "conversations": [{"from": "human", "value": "a \u00e9"}, {"from": "gpt", "value": "b"}]},
        Chat([{"role": "system", "content": "s"}, *MESSAGES]),
    ),
    "prompt": ({"prompt": "a", "completion": "b"}, Completion("a", "b")),
    "prompt of messages": ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, Chat(MESSAGES, prompt=1)),
    "alpaca": (
        {"instruction": "a", "input": "i", "output": "b", "history": [["q", "r"]]},
        Chat([{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"},
              {"role": "user", "content": "a\n\ni"}, {"role": "assistant", "content": "b"}]),
    ),
    "text": ({"text": "t", "source": "x"}, Text("t")),
}  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize("name", RECORDS)
def test_formats_are_found_from_the_content(name: str, tmp_path: Path) -> None:
    record, sample = RECORDS[name]
    path = written(tmp_path / "x", json.dumps(record))
    source = open_source(path)
    assert (source.container, source.form) == ("lines", name.split()[0])
    assert list(source.samples(Skipped())) == [(1, sample)]
    assert open_source(path, form="plain").container == "plain"
    written(path, json.dumps([record]))
    assert samples_of(path) == [(1, sample)]


@pytest.mark.quick
@pytest.mark.parametrize(
    "content",
    ["[Verse 1]\nla", "{\n int x;\n}\n", '{"a": 1,\n "b": 2}\n', "[1]\n[2]\n", "", "  \n", '[{"a": 1', "{a}\n{b}\n",
     '{"a": 1}\nprose\nprose\n'],
)  # fmt: skip
def test_other_texts_are_plain(content: str, tmp_path: Path) -> None:
    assert open_source(written(tmp_path / "x", content)).form == "plain"


@pytest.mark.quick
@pytest.mark.parametrize("form", [None, "messages"])
def test_a_sample_on_several_lines_is_refused(tmp_path: Path, form: str | None) -> None:
    path = written(tmp_path / "x", json.dumps({"messages": MESSAGES}, indent=1) + "\n")
    with pytest.raises(FileFormatError, match=r"x begins with a sample that takes several lines; write each sample in"):
        open_source(path, form=form)
    assert open_source(path, form="plain").form == "plain"


@pytest.mark.quick
def test_a_chosen_format_is_used(tmp_path: Path) -> None:
    both = {"text": "t", "messages": MESSAGES, "body": "u"}
    path = written(tmp_path / "x", json.dumps(both))
    assert samples_of(path) == [(1, Chat(MESSAGES))]
    assert samples_of(path, form="text") == [(1, Text("t"))]
    assert samples_of(path, text_field="body") == [(1, Text("u"))]
    with pytest.raises(TinyNNValueError, match=r"^text_field: the format 'messages' has no text field"):
        open_source(path, "messages", "body")
    with pytest.raises(
        FileFormatError, match="the sample has no field 'prompt'; its fields are 'text', 'messages', 'body'"
    ):
        samples_of(path, form="prompt")
    written(path, "prose\n" + json.dumps(both))
    with pytest.raises(FileFormatError, match="x, line 1: the text is not JSON: "):
        samples_of(path, form="messages")
    written(path, json.dumps({"chosen": 1, "other": 2}))
    with pytest.raises(FileFormatError, match="unknown format: their fields are 'chosen', 'other', but must"):
        open_source(path)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("form", "record", "reason"),
    [
        ("messages", {"messages": []}, "'messages' must contain at least one element, got none"),
        ("messages", {"messages": [1]}, r"messages\[0\] must be an object, got 1"),
        ("messages", {"messages": [{"role": 1}]}, r"messages\[0\]\['role'\] must be a text, got 1"),
        ("messages", {"messages": [{"role": "user", "content": 1}]}, r"\['content'\] must be a text or a list of obj"),
        ("messages", {"messages": [{"role": "user", "content": None}]}, r"messages\[0\] must have a 'content' or"),
        ("messages", {"messages": [{"role": "user"}]}, r"'tool_calls', got {'role': 'user'}"),
        (
            "messages",
            {"messages": MESSAGES, "tools": "x"},
            "'tools' must be a list of objects, or a text that contains such a list as JSON: the text is not JSON",
        ),
        ("messages", {"messages": MESSAGES, "tools": [1]}, "'tools' must be a list of objects"),
        ("messages", {"messages": MESSAGES, "chat_template_kwargs": 1}, "'chat_template_kwargs' must be an object"),
        ("conversations", {"conversations": "x"}, "'conversations' must be a list, got 'x'"),
        ("conversations", {"conversations": [{"from": "x", "value": "y"}]}, r"\['from'\] must be one of human, user, "),
        ("conversations", {"conversations": [{"from": [], "value": "y"}]}, r"\['from'\] must be one of"),
        ("conversations", {"conversations": [{"from": "gpt"}]}, r"\['value'\] must be a text, got None"),
        ("prompt", {"prompt": "a", "completion": ""}, "'completion' must not be empty"),
        ("prompt", {"prompt": [], "completion": MESSAGES}, "prompt must contain at least one message, got none"),
        ("prompt", {"prompt": MESSAGES, "completion": "x"}, "must both be .* but only 'prompt' is a list"),
        ("prompt", {"prompt": "x", "completion": MESSAGES}, "must both be .* but only 'completion' is a list"),
        ("alpaca", {"instruction": "a", "output": None}, "'output' must be a text, got None"),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["x"]]}, r"history\[0\] must be a list of two"),
        ("alpaca", {"instruction": "a", "output": "b", "history": 3}, "'history' must be a list"),
    ],
)
def test_a_wrong_record_has_a_reason(form: str, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(TinyNNValueError, match=reason):
        sample_of(record, form)


# ---- memory ----


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    program = f"""
import json, resource
from pathlib import Path
from toynn.data.sources import Skipped, open_source
def peak(n):
    path = Path({str(tmp_path)!r}) / str(n)
    with path.open("w") as file:
        file.write("[" if n < 0 else "")
        for i in range(abs(n)):
            end = "" if n > 0 else "]" if i == abs(n) - 1 else ","
            file.write(json.dumps({{"text": "word " * 2000}}) + end + "\\n")
    assert sum(1 for _ in open_source(path).samples(Skipped())) == abs(n)
    path.unlink()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
small = max(peak(500), peak(-500))  # 5 MB
print(max(peak(12_000), peak(-12_000)) - small)  # 120 MB
"""
    assert int(run_with_toynn(program)) < 25
    assert resource.getpagesize() > 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a", "x": NaN}', "NaN is not a JSON number"),
        ('{"text": "a", "text": "b"}', "the key 'text' occurs more than once"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 100 deep"),
    ],
)
@pytest.mark.parametrize("good", [0, 3])
def test_a_file_whose_first_lines_are_refused_is_not_read_as_plain_text(
    tmp_path: Path, line: str, reason: str, good: int
) -> None:
    path = tmp_path / "x"
    path.write_text("\n".join([line] * 4 + ['{"text": "a"}'] * good), encoding="utf-8")
    with pytest.raises(FileFormatError, match=f"line 1: .*{reason}"):
        list(open_source(path).samples(Skipped(0)))
