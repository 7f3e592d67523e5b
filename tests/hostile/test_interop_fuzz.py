"""For any damaged file, the readers return a model or raise a TinyNNError, and use little memory."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz_interop as fuzz
from gguf_bytes import STRING, U32, U64, GgufBytes, array, scalar, tiny
from toynn import TinyNNValueError
from toynn.interop import import_gguf, import_hf

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_a_thousand_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    outcomes = [fuzz.run(seed, tmp_path) for seed in range(1000)]
    assert outcomes.count("refused") > 700, "too few files are damaged enough to be refused"
    assert outcomes.count("read") > 5, "no damage is harmless, although a changed bit of a weight is"


def test_the_files_without_damage_can_be_read(tmp_path: Path) -> None:
    for content in fuzz.good_ggufs():
        assert fuzz.read_gguf(content, tmp_path) == "read"
    for files in fuzz.good_folders():
        assert fuzz.read_folder(files, tmp_path) == "read"
    assert fuzz.read_ids(fuzz.good_ids(), tmp_path) == "read"
    assert fuzz.read_mapped(fuzz.good_stored().build(), tmp_path) == "read"
    assert fuzz.read_split(fuzz.good_split(), tmp_path) == "read"
    for files in fuzz.good_adapters():
        assert fuzz.read_adapter(files, tmp_path) == "read"


@many
@given(which=st.integers(0, 7), share=st.floats(0, 1, exclude_max=True))
def test_a_gguf_file_cut_anywhere_is_refused(
    which: int, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = fuzz.good_ggufs()[which]
    last = content.rstrip(b"\0")  # without the padding after the last tensor; a file without this padding is valid
    cut = content[: int(share * (len(last) - 1))]
    assert fuzz.read_gguf(cut, tmp_path_factory.mktemp("cut")) == "refused"


@many
@given(which=st.integers(0, 1), share=st.floats(0, 1, exclude_max=True), data=st.data())
def test_a_folder_with_a_file_cut_anywhere_is_refused(
    which: int, share: float, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = dict(fuzz.good_folders()[which])
    needed = [name for name in files if name not in ("generation_config.json", "tokenizer_config.json")]
    name = data.draw(st.sampled_from(sorted(needed)))
    files[name] = files[name][: int(share * (len(files[name].rstrip()) - 1))]
    assert fuzz.read_folder(files, tmp_path_factory.mktemp("cut")) == "refused"


@many
@given(which=st.integers(0, 1), share=st.floats(0, 1, exclude_max=True), data=st.data())
def test_an_adapter_with_a_file_cut_anywhere_is_refused(
    which: int, share: float, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = dict(fuzz.good_adapters()[which])
    name = data.draw(st.sampled_from(sorted(files)))
    files[name] = files[name][: int(share * (len(files[name].rstrip(b" \n\0")) - 1))]
    assert fuzz.read_adapter(files, tmp_path_factory.mktemp("cut")) == "refused"


@many
@given(head=st.binary(max_size=300), magic=st.booleans())
def test_a_file_of_random_bytes_is_refused(head: bytes, magic: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = b"GGUF\3\0\0\0" + head if magic else head
    assert fuzz.read_gguf(content, tmp_path_factory.mktemp("any")) == "refused"


@many
@given(at=st.integers(0, 2000), value=st.sampled_from(fuzz.HOSTILE_INTEGERS), width=st.sampled_from([1, 4, 8]))
def test_a_header_with_one_changed_integer_is_read_or_refused(
    at: int, value: int, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = tiny().build()
    at %= len(content)
    changed = content[:at] + (value % 256**width).to_bytes(width, "little") + content[at + width :]
    fuzz.read_gguf(changed, tmp_path_factory.mktemp("word"))


@pytest.mark.parametrize(
    "content",
    [
        GgufBytes(tiny().values, tiny().tensors, n_tensors=2**60).build(),
        GgufBytes(tiny().values, tiny().tensors, n_values=2**60).build(),
        GgufBytes([("a", struct.pack("<IQ", STRING, 2**40))]).build(),
        GgufBytes([("a", array(U64, [1], 2**40))]).build(),
        GgufBytes([("a", array(STRING, ["x"], 2**40))]).build(),
        tiny().with_tensor("token_embd.weight", [4, 2**40], 0, None, b"\0" * 96).build(),
        tiny().set("llama.block_count", scalar(U32, 2**31 - 1)).build(),
        tiny().set("llama.attention.head_count", scalar(U32, 2**31 - 2)).build(),
        tiny().set("llama.feed_forward_length", scalar(U32, 2**31 - 1)).build(),
        tiny().set("llama.context_length", scalar(U64, 2**63)).build(),
        tiny().set("llama.attention.key_length", scalar(U32, 2**31 - 2)).build(),
    ],
)
def test_a_size_beyond_the_end_of_the_file_takes_no_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(TinyNNValueError):
            import_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_of_a_terabyte_is_not_read(name: str, tmp_path: Path) -> None:
    for file, content in fuzz.good_folders()[0].items():
        (tmp_path / file).write_bytes(content)
    with (tmp_path / name).open("wb") as sparse:
        sparse.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(TinyNNValueError, match=name):
            import_hf(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
