"""Damage GGUF files, Hugging Face folders, adapters and files of packed token ids at random and read them.

    python tools/fuzz/fuzz_interop.py [--seconds 60] [--rounds N] [--seed S]

A round depends only on its seed. A round damages one file and reads it. The reader must return a model or raise a
TinyNNError, and must not use much more memory than the size of the file. After a failure the script prints the seed;
`--seed S --rounds 1` repeats the round. `make fuzz` runs this script.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paths import TESTS_SUPPORT

sys.path.insert(0, str(TESTS_SUPPORT))

from adapters import adapter_of
from fuzz_watch import END, add_options, passed_on, watch
from gguf_bytes import GgufBytes, array, of_toy, scalar, tiny
from interop_models import make
from quantized import TYPES, random_bytes
from sentencepiece_models import lists_of, model_of, parsed, trained
from toynn import AdamW, LoRA, RecipeOptions, TinyNNError, TinyNNMemoryError, labels
from toynn import tinynn as nn
from toynn.data import DataFolder
from toynn.interop import (
    GgufBase,
    export_gguf,
    export_gguf_adapter,
    export_hf,
    export_peft,
    export_toy,
    import_gguf,
    import_gguf_adapter,
    import_hf,
    import_peft,
)
from toynn.interop.gguf_model import MappedGguf
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.trained_model import TrainedModel

Files = dict[str, bytes]
MOST_MEMORY = 1 << 26  # maximum memory of a reader in bytes; each file has less than 1 MB
HOSTILE_INTEGERS = [0, 1, 2, 7, 8, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
HOSTILE_JSON: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 1e308, -1e-320, 0.5, "", "llama", "x" * 1000, [], {},
    [[[]]], [0] * 100, {"a": {}}, [2**62, 2**62], "F32", "F16", "BF16", "Q8_0", "../../etc/passwd", "\ud800", "\0",
]  # fmt: skip


# ---- undamaged files ----


@functools.cache
def good_ggufs() -> list[bytes]:
    """Return undamaged files with several types of tensors, with and without tokenizers, and files of the Ruby
    project toy.
    """
    found = [tiny().build(), of_toy(by_head=True).build()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        for name, dtype in (
            ("everything at once", "f32"),
            ("qkv_bias", "q8_0"),
            ("llama3 rope", "f16"),
            ("tied", "bf16"),
            ("gemma3", "f32"),
        ):
            export_gguf(make(name), path, dtype, overwrite=True)
            found.append(path.read_bytes())
        export_toy(make("llama3 rope"), path, overwrite=True)
        found.append(path.read_bytes())
        export_gguf(model_of(lists_of(trained())), path, overwrite=True)
        found.append(path.read_bytes())
    return found


@functools.cache
def good_folders() -> list[Files]:
    """Return undamaged folders. The second one has its weights in shards, and the fourth one has a tokenizer.model."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("qkv_bias", "llama3_hf rope", "gemma3"):
            folder = export_hf(make(name, n_layers=1), Path(temporary) / name)
            found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    header_end = 8 + struct.unpack("<Q", found[1]["model.safetensors"][:8])[0]
    found.append({**found[0], "tokenizer.model": trained(vocab_size=500)})
    del found[3]["tokenizer.json"], found[3]["tokenizer_config.json"]
    names = [key for key in json.loads(found[1]["model.safetensors"][8:header_end]) if key != "__metadata__"]
    shard = "model-00001-of-00001.safetensors"
    found[1][shard] = found[1].pop("model.safetensors")
    found[1]["model.safetensors.index.json"] = json.dumps({"weight_map": dict.fromkeys(names, shard)}).encode()
    return found


@functools.cache
def good_stored() -> GgufBytes:
    """Return a file with a matrix of each type. Some of its blocks have a scale that is NaN or infinite."""
    file = tiny()
    for kind in TYPES:
        file = file.with_tensor(kind.name, [256, 3], int(kind), None, random_bytes(kind, 3, 0, 256).tobytes())
    return file


@functools.cache
def good_split() -> Files:
    """Return the two files of a split model."""
    files = {}
    for number in (0, 1):
        file = tiny()
        for key, value in (("no", scalar(2, number)), ("count", scalar(2, 2)), ("tensors.count", scalar(5, 11))):
            file = file.set(f"split.{key}", value)
        file.tensors = file.tensors[:5] if number == 0 else file.tensors[5:]
        files[f"m-{number + 1:05}-of-00002.gguf"] = file.build()
    return files


ADAPTED = make("gqa", n_layers=1).shape  # the shape of the base of the adapters


@functools.cache
def good_adapters() -> list[Files]:
    """Return an undamaged adapter as a GGUF file, and as a folder of PEFT."""
    adapter = adapter_of(ADAPTED, ("q", "down"), use_rslora=True)
    with tempfile.TemporaryDirectory() as temporary:
        export_gguf_adapter(adapter, Path(temporary) / "a.gguf")
        folder = export_peft(adapter, Path(temporary) / "peft")
        return [
            {"a.gguf": (Path(temporary) / "a.gguf").read_bytes()},
            {path.name: path.read_bytes() for path in folder.iterdir()},
        ]


def good_ids() -> bytes:
    """Return an undamaged file of packed ids: the header, then the ids."""
    return b"TOYC" + struct.pack("<III", 1, 50, 0) + struct.pack("<100i", *(i % 50 for i in range(100)))


# ---- damage ----


def damaged(content: bytes, pick: random.Random, header: int = 4000) -> bytes:
    """Return the bytes with a few random changes, most of them in the header."""
    for _ in range(pick.choice([1, 1, 1, 2, 5])):
        at = pick.randrange(min(len(content), header if pick.random() < 0.9 else len(content)) or 1)
        before, after = content[:at], content[at:]
        other = pick.randrange(len(content) or 1)
        word, n = pick.choice(HOSTILE_INTEGERS), pick.choice([1, 4, 8, 32, 500])
        content = pick.choice(
            [
                before,
                before + bytes([after[0] ^ 1 << pick.randrange(8)]) + after[1:] if after else before,
                before + pick.randbytes(1) + after[1:],
                before + struct.pack("<Q", word) + after[8:],
                before + struct.pack("<I", word % 2**32) + after[4:],
                before + after[n:],
                before + pick.randbytes(n) + after,
                before + content[other : other + n] + after[n:],
                content + pick.randbytes(n),
            ]
        )
    return content


def tiny_pieces() -> GgufBytes:
    """Return `tiny` with a SentencePiece tokenizer."""
    file = tiny().set("tokenizer.ggml.model", scalar(8, "llama"))
    file = file.set("tokenizer.ggml.tokens", array(8, ["<unk>", "<s>", "a", "b", "ab", "\u2581"]))
    file = file.set("tokenizer.ggml.token_type", array(5, [2, 3, 1, 1, 1, 1]))
    return file.set("tokenizer.ggml.scores", array(6, [0.0, 0.0, -3.0, -2.0, -1.0, -4.0]))


def hostile_gguf(pick: random.Random) -> bytes:
    """Return a file that has the correct form, with some wrong values."""
    file: GgufBytes = pick.choice([tiny(), tiny(2), tiny_pieces(), of_toy(by_head=False), of_toy(by_head=True)])
    for _ in range(pick.choice([1, 1, 2, 4])):
        key = pick.choice([*(str(key) for key, _ in file.values), "llama.attention.head_count_kv", "general.alignment",
                           "llama.vocab_size", "llama.attention.key_length", "tokenizer.ggml.tokens", "split.count",
                           "tokenizer.ggml.token_type", "tokenizer.ggml.scores", "tokenizer.ggml.merges",
                           "tokenizer.ggml.pre",
                           "toy.ggml_native", "toy.checkpoint_format", "llama.rope.scaling.type",
                           "llama.rope.scaling.factor"])  # fmt: skip
        word = pick.choice(HOSTILE_INTEGERS)
        value = pick.choice([
            None, scalar(10, word), scalar(4, word % 2**32), scalar(5, word % 2**31), scalar(6, float(word)),
            scalar(7, True), scalar(8, pick.choice(["llama", "gpt2", "gpt-2", "linear", "", "\0", "x" * 300])),
            array(8, ["a", "b", "", "a"]), array(5, [1, 2, 3]), array(6, [0.0, float("nan"), -1.0, -1.0, 1e30, -1e30]),
            array(8, ["a b", "c"], word), array(9, [], 3),
            array(pick.randrange(13), [], word),
        ])  # fmt: skip
        if pick.random() < 0.5:
            file = file.set(key, value)
        else:
            name, ne, kind, offset, data = pick.choice(file.tensors)
            ne = [pick.choice([*ne, word]) for _ in ne] if pick.random() < 0.5 else [word] * pick.randrange(6)
            kind = pick.choice([kind, 0, 1, 8, 30, 31, 12, word % 2**32])
            offset = pick.choice([offset, None, word, word - word % 32])
            file = file.with_tensor(
                pick.choice([name, "x", "", "blk.0.attn_q.bias", "blk.0.attn_q.head_1.weight"]), ne, kind, offset, data
            )
    file.n_tensors = pick.choice([None, None, None, pick.choice(HOSTILE_INTEGERS)])
    file.n_values = pick.choice([None, None, None, pick.choice(HOSTILE_INTEGERS)])
    return file.build()


def changed(value: Any, pick: random.Random) -> Any:
    """Return the JSON value with one part changed."""
    if isinstance(value, dict) and value and pick.random() < 0.9:
        key = pick.choice(list(value))
        other = dict(value)
        chance = pick.random()
        if chance < 0.15:
            del other[key]
        elif chance < 0.25:
            other[pick.choice(["", "x", key + "x"])] = other.pop(key)
        else:
            other[key] = changed(value[key], pick)
        return other
    if isinstance(value, list) and value and pick.random() < 0.8:
        at = pick.randrange(len(value))
        return [*value[:at], changed(value[at], pick), *value[at + 1 :]]
    return pick.choice(HOSTILE_JSON)


def changed_json(content: bytes, pick: random.Random) -> bytes:
    value = json.loads(content)
    for _ in range(pick.choice([1, 1, 2, 4])):
        value = changed(value, pick)
    return json.dumps(value).encode()


def changed_safetensors(content: bytes, pick: random.Random) -> bytes:
    n = struct.unpack("<Q", content[:8])[0]
    header = changed_json(content[8 : 8 + n], pick)
    return struct.pack("<Q", len(header)) + header + content[8 + n :]


def changed_model(content: bytes, pick: random.Random) -> bytes:
    """Return a tokenizer.model that has the correct form, with some wrong values."""
    model = parsed(content)
    for _ in range(pick.choice([1, 1, 2, 4])):
        piece, other = pick.choice(model.pieces), pick.choice(model.pieces)
        owner, field, value = pick.choice([
            (piece, "score", pick.choice([other.score, float("nan"), float("inf"), 1e30])),
            (piece, "type", pick.randrange(1, 7)),
            (piece, "piece", pick.choice(["", "\0", "x" * 300, other.piece, piece.piece * 2, "<0x41>"])),
            (model.trainer_spec, "model_type", pick.randrange(1, 5)),
            (model.trainer_spec, "bos_id", pick.choice(HOSTILE_INTEGERS) % 2**31),
            (model.normalizer_spec, "remove_extra_whitespaces", True),
            (model.normalizer_spec, "precompiled_charsmap", pick.randbytes(pick.randrange(600))),
        ])  # fmt: skip
        setattr(owner, field, value)
    written: bytes = model.SerializeToString()
    return written


def wrong_adapter(pick: random.Random) -> Files:
    """Return the files of an adapter with a damaged file, or with a wrong value in a file of the correct form."""
    files = dict(pick.choice(good_adapters()))
    name = pick.choice(list(files))
    if name.endswith(".gguf") or pick.random() < 0.3:
        files[name] = damaged(files[name], pick, header=1200)
    elif name.endswith(".json"):
        files[name] = changed_json(files[name], pick)
    else:
        files[name] = changed_safetensors(files[name], pick)
    return files


# ---- reading ----


def result_of(read: Callable[[], TrainedModel | TrainedAdapter | DataFolder | None]) -> str:
    """Return "read" or "refused".

    Raises:
        AssertionError: the reader used too much memory, or raised an error without a message.
        Exception: the reader raised an exception that is not a TinyNNError.
    """
    tracemalloc.start()
    try:
        read()
        result = "read"
    except TinyNNMemoryError:
        raise
    except TinyNNError as error:
        if not str(error):
            raise AssertionError(f"the reader raised {error!r} without a message") from error
        result = "refused"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if peak > MOST_MEMORY:
        raise AssertionError(f"the reader used {peak} bytes, at most {MOST_MEMORY} are allowed")
    return result


def read_gguf(content: bytes, folder: Path) -> str:
    """Write a GGUF file to the folder, import it and use it as a base. Return "read" or "refused" for the import."""
    path = folder / "m.gguf"
    path.write_bytes(content)
    result_of(lambda: use_as_base(path))
    return result_of(lambda: import_gguf(path))


def use_as_base(path: Path) -> None:
    """Take a step of LoRA on a model that maps a GGUF file."""
    with GgufBase(path) as base, LoRA() as recipe:
        shape = base.shape
        opts = RecipeOptions(t_seq=1, untied=shape.untied, qkv_bias=shape.qkv_bias, n_threads=1)
        recipe.realize(base, shape, 1, opts)
        recipe.step([0], [0], labels.fixed_target(shape.vocab, 1, 0), AdamW().hp(1), True)


def read_mapped(content: bytes, folder: Path) -> str:
    """Write a GGUF file to the folder, map its tensors and compute with each matrix. Return "read" or "refused"."""
    path = folder / "mapped.gguf"
    path.unlink(missing_ok=True)  # an earlier file can still be mapped, so it is not overwritten
    path.write_bytes(content)
    return result_of(lambda: _products(path))


def _products(path: Path) -> None:
    with MappedGguf(path) as gguf, nn.Session(n_threads=1) as s:
        weights = [gguf.whole(s, name) for name, tensor in gguf.tensors.items() if len(tensor.shape) <= 3]
        nn.tnn_finalize_weights(s)
        for w in weights:
            nn.tnn_reset_for_rebuild(s)
            x = nn.tnn_input_2d_f32(s, 2, w.ne[0])
            nn.tnn_realize(s, nn.tnn_sum(s, nn.tnn_matmul(s, w, x)))
            nn.upload_row_major(s, x, np.ones((2, w.ne[0])))
            nn.tnn_compute(s)
            nn.tnn_download(s, w)


def read_split(files: Files, folder: Path) -> str:
    """Write the files of a split model into the folder and read them. Return "read" or "refused"."""
    inside = folder / "split"
    inside.mkdir(exist_ok=True)
    for name, content in files.items():
        (inside / name).write_bytes(content)
    return result_of(lambda: import_gguf(inside / min(files)))


def folder_with(files: Files, folder: Path) -> Path:
    """Write files into an empty folder inside the folder, and return its path."""
    inside = folder / "files"
    inside.mkdir(exist_ok=True)
    for old in inside.iterdir():
        old.unlink()
    for name, content in files.items():
        (inside / name).write_bytes(content)
    return inside


def read_folder(files: Files, folder: Path) -> str:
    """Write the files of a Hugging Face folder into the folder and read them. Return "read" or "refused"."""
    inside = folder_with(files, folder)
    return result_of(lambda: import_hf(inside))


def read_adapter(files: Files, folder: Path) -> str:
    """Write the files of an adapter into the folder and read them. Return "read" or "refused"."""
    inside = folder_with(files, folder)
    if "a.gguf" in files:
        return result_of(lambda: import_gguf_adapter(inside / "a.gguf", ADAPTED))
    return result_of(lambda: import_peft(inside, ADAPTED))


def read_ids(content: bytes, folder: Path) -> str:
    """Write a file of packed token ids to the folder and open it as data. Return "read" or "refused"."""
    path = folder / "ids.bin"
    path.unlink(missing_ok=True)  # an earlier file can still be mapped, so it is not overwritten
    path.write_bytes(content)
    return result_of(lambda: DataFolder.open(path))


def run(seed: int, folder: Path) -> str:
    """Play one round. Return "read" or "refused". Raise the errors of `result_of`."""
    pick = random.Random(seed)
    kind = pick.randrange(8)
    if kind == 4:
        return read_ids(damaged(good_ids(), pick, header=24), folder)
    if kind == 5:
        return read_mapped(damaged(good_stored().build(), pick), folder)
    if kind == 6:
        split = dict(good_split())
        name = pick.choice(list(split))
        return read_split({**split, name: damaged(split[name], pick)}, folder)
    if kind == 7:
        return read_adapter(wrong_adapter(pick), folder)
    if kind == 0:
        return read_gguf(damaged(pick.choice(good_ggufs()), pick), folder)
    if kind == 1:
        return read_gguf(hostile_gguf(pick), folder)
    files = dict(pick.choice(good_folders()))
    name = pick.choice([name for name in files if name not in ("generation_config.json", "tokenizer_config.json")])
    if kind == 2:
        files[name] = damaged(files[name], pick, header=2000)
    elif name.endswith(".json"):
        files[name] = changed_json(files[name], pick)
    elif name.endswith(".model"):
        files[name] = changed_model(files[name], pick)
    else:
        files[name] = changed_safetensors(files[name], pick)
    return read_folder(files, folder)


def rounds(first: int, most: int, seconds: float) -> None:
    """Run rounds one after the other, in the child. Print the seed before each round."""
    end, outcomes, done = time.monotonic() + seconds, {"read": 0, "refused": 0}, 0
    with tempfile.TemporaryDirectory() as folder:
        while done < most and (time.monotonic() < end or done == 0):
            print("seed", first + done, flush=True)
            outcomes[run(first + done, Path(folder))] += 1
            done += 1
    print(f"{done} rounds from seed {first}: {outcomes['refused']} files refused, {outcomes['read']} read")
    print(END)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser, "round", patience=120)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        rounds(options.seed, options.most, options.seconds)
        return 0
    outcome = watch(__file__, passed_on(options, "round"), options.patience)
    print(outcome.output)
    return 0 if outcome.succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
