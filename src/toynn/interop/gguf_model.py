"""A GGUF model, in one file or split into several: its keys, and its tensors, read or mapped."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from toynn import tinynn as nn
from toynn.arguments import integer, kind_of
from toynn.errors import FileFormatError, TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.interop.file_errors import naming
from toynn.interop.gguf_header import GgufTensor, GgufValues, read_header
from toynn.storage.durable_files import sha256_of_parts
from toynn.storage.regular_files import open_regular, path_of, printable, refuse_lfs_pointer
from toynn.tinynn.mapped import read_into
from toynn.tinynn.memory import want_memory

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)  # file names as llama-gguf-split makes them
_MOST_PARTS = 999  # each part is an open file, and a process can have about a thousand open files
_CHUNK = 1 << 24  # number of bytes that are copied at once


class GgufModel(Initialised):
    """An open GGUF file whose header was checked. The path of a split model is the path of its first file.

    Attributes:
        path: the file, or the first of several.
        values: the keys of the header.
        tensors: name, shape, type and place of each tensor, by name.

    Raises:
        FileFormatError: a file is damaged or has another format, or a file of a split model is missing or belongs to
            another model. The message names the file.
        OSError: the file cannot be opened.
    """

    __slots__ = ("__weakref__", "_files", "_open", "path", "tensors", "values")

    values: GgufValues
    tensors: dict[str, GgufTensor]

    def __init__(self, path: Path) -> None:
        self.path = path_of("path", path)
        self._files: list[tuple[Path, BinaryIO]] = []
        self.tensors = {}
        with ExitStack() as opened:
            self._add(self.path, opened)
            for other in self._other_parts():
                self._add(other, opened)
            self._check_parts()
            self._open = opened.pop_all()

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Closing twice is harmless."""
        self._open.close()

    def read(self, name: str, first: int = 0, n: int | None = None) -> npt.NDArray[np.float32]:
        """Return the values of a tensor as float32, in its shape, or only n of its rows, beginning with row `first`.

        Raises:
            TinyNNValueError: there is no tensor of this name, or no such rows.
            FileFormatError: the file became shorter since it was opened.
            TinyNNMemoryError: there is not enough memory.
        """
        tensor = self.tensor(name)
        rows = tensor.shape[0]
        at = integer("first", first, 0, rows - 1)
        count = rows - at if n is None else integer("n", n, 1, rows - at)
        if len(tensor.shape) == 1 and count != rows:  # a row is one number, so a quantized block covers several rows
            return self.read(name)[at : at + count]
        return nn.tnn_dequantize(tensor.type, self.stored_rows(name, at, count), (count, *tensor.shape[1:]))

    def stored_rows(self, name: str, first: int, n: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of n rows of a matrix, beginning with row `first`, or of a whole vector.

        The arguments must be valid. Raises FileFormatError if the file became shorter since it was opened.
        """
        tensor = self.tensor(name)
        rows = tensor.shape[0]
        return self.stored_bytes(tensor.part, tensor.offset + tensor.nbytes * first // rows, tensor.nbytes * n // rows)

    def stored_bytes(self, part: int, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the file `part` of the model, beginning at a position of this file.

        The arguments must be valid. Raises FileFormatError if the file became shorter since it was opened.
        """
        stored = np.empty(nbytes, dtype=np.uint8)
        path, file = self._files[part]
        if read_into(file.fileno(), offset, stored.data) != nbytes:
            raise FileFormatError(f"the file {path.name} became shorter while it was read; try again")
        return stored

    def tensor(self, name: str) -> GgufTensor:
        """Return the description of a tensor. Raises TinyNNValueError if there is no tensor of this name."""
        if not isinstance(name, str):
            raise TinyNNTypeError(f"name must be a str, got {kind_of(name)}")
        if name not in self.tensors:
            raise TinyNNValueError(f"name must be the name of a tensor in {self.path}, got {name!r:.80}")
        return self.tensors[name]

    # ---- opening ----

    def _add(self, path: Path, opened: ExitStack) -> None:
        """Open a file and add its tensors. Take the keys from the first file."""
        file = opened.enter_context(open_regular(path))
        with naming(path):
            refuse_lfs_pointer(file.read(256))
            file.seek(0)
            header = read_header(file, os.fstat(file.fileno()).st_size, part=len(self._files))
            if not self._files:
                self.values = header.values
            elif (number := header.values.whole("split.no")) != len(self._files):
                raise FileFormatError(f"split.no must be {len(self._files)} in this file, got {number}")
            elif (count := header.values.whole("split.count")) != self.values.whole("split.count"):
                raise FileFormatError(
                    f"split.count is {count}, but in {self.path} it is {self.values.whole('split.count')}"
                )
            for name, tensor in header.tensors.items():
                if name in self.tensors:
                    raise FileFormatError(
                        f"the tensor {name!r:.80} is also in another file of the model, but must be in only one file"
                    )
                self.tensors[name] = tensor
        self._files.append((path, file))

    def _other_parts(self) -> list[Path]:
        """Return the paths of the other files of a split model."""
        with naming(self.path):
            count = self.values.whole("split.count", 0)
            if count <= 1:
                return []
            if count > _MOST_PARTS:
                raise FileFormatError(f"split.count is {count}, but at most {_MOST_PARTS} files are supported")
            name = _PART.fullmatch(self.path.name)
            if name is None or int(name[3]) != count:
                raise FileFormatError(
                    f"the model is split into {count} files; they must be named NAME-00001-of-{count:05}.gguf and so on"
                )
            first = f"{name[1]}-00001-of-{count:05}.gguf"
            if self.values.whole("split.no") != 0 or int(name[2]) != 1:
                raise FileFormatError(f"this is not the first file of the model; open {first}")
        parts = [self.path.with_name(f"{name[1]}-{i + 1:05}-of-{count:05}.gguf") for i in range(1, count)]
        for part in parts:
            if not part.exists():
                raise FileFormatError(f"{self.path}: the model is split into {count} files, but {part.name} is missing")
        return parts

    def _check_parts(self) -> None:
        with naming(self.path):
            if len(self._files) > 1 and (n := self.values.whole("split.tensors.count")) != len(self.tensors):
                raise FileFormatError(
                    f"split.tensors.count is {n}, but the {len(self._files)} files have {len(self.tensors)} tensors; "
                    "use intact copies of all files"
                )


class MappedGguf(GgufModel):
    """A GGUF model whose tensors can be weights of sessions without a copy, because the file is mapped into memory.

    For each session:

        with MappedGguf(path) as gguf, Session() as s:
            q = gguf.rows(s, name_of_q, head * d_head, d_head)  # [d_model, d_head]
            norm = gguf.whole(s, name_of_norm)
            tnn_finalize_weights(s)

    The rows of one head of q, k or v are a byte range of the file. Their order within a head is that of the file:
    "halves" if `values.flag("toy.ggml_native", False)`, else "interleaved" (`toynn.interop.rope_order`). `read` returns
    a tensor as f32. A session keeps the mapping until it is closed, also after this object is closed.
    """

    __slots__ = ("_copies", "_mapped")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._mapped: list[nn.MappedFile] = []
        self._copies: dict[int, nn.MappedFile] = {}
        try:
            for one, file in self._files:
                self._mapped.append(nn.MappedFile(file, printable(one)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MappedGguf:
        return self

    def close(self) -> None:
        """Close the files. Sessions that use them keep their mappings. Closing twice is harmless."""
        for file in (*self._mapped, *self._copies.values()):
            file.close()
        super().close()

    def check(self) -> None:
        """Raise MappedFileError if a file was changed since it was opened: its tensors may then be in other places.

        Raises SessionError if this object is closed.
        """
        for file in self._mapped:
            file.check()

    def sha256(self) -> str:
        """Return the SHA-256 of the file or, for a split model, of a list with the SHA-256 of each of its files.

        Raises MappedFileError if a file was changed since it was opened.
        """
        return sha256_of_parts(
            {path.name: _sha256(file) for (path, _), file in zip(self._files, self._mapped, strict=True)}
        )

    def whole(self, s: nn.Session, name: str) -> nn.Tensor:
        """Declare a whole tensor as a weight of the session, before `tnn_finalize_weights`.

        The weight has the dimensions of the tensor in reverse order, because ggml begins with the columns.

        Raises:
            TinyNNValueError: there is no tensor of this name, or it has more than three dimensions.
            MappedFileError: the file was changed since it was opened.
            SessionError: the weights of the session are finalized already.
        """
        tensor = self.tensor(name)
        sizes = tensor.shape
        if len(sizes) > 3:
            raise TinyNNValueError(f"the tensor {name!r:.80} must have at most 3 dimensions, got shape {sizes}")
        return _declared(s, self._mapped[tensor.part], sizes, tensor.type, tensor.offset)

    def rows(self, s: nn.Session, name: str, first: int, n: int, copy: bool = False) -> nn.Tensor:
        """Declare n rows of a matrix, or n elements of a vector, as a weight of the session: [cols, n], or [n].

        copy: use a copy of the file in memory, which later changes of the file do not affect. The first call with
            copy=True makes the copy.

        Raises the errors of `whole`, and TinyNNValueError if the rows are not part of the tensor.
        """
        tensor = self.tensor(name)
        if len(tensor.shape) > 2:
            raise TinyNNValueError(f"the tensor {name!r:.80} must have one or two dimensions, got shape {tensor.shape}")
        total = tensor.shape[0]
        at, count = integer("first", first, 0, total - 1), integer("n", n, 1, total)
        if at + count > total:
            raise TinyNNValueError(
                f"first + n must be at most {total} (the number of rows of {name!r:.80}), got {at} + {count}"
            )
        per_block = nn.tnn_type_block_size(tensor.type) if len(tensor.shape) == 1 else 1
        if at % per_block or count % per_block:
            raise TinyNNValueError(
                f"first and n must be multiples of {per_block}, the block size of {name!r:.80}, got {at} and {count}"
            )
        offset = tensor.offset + tensor.nbytes * at // total
        file = self._copy(tensor.part) if copy else self._mapped[tensor.part]
        return _declared(s, file, (count, *tensor.shape[1:]), tensor.type, offset)

    def _copy(self, part: int) -> nn.MappedFile:
        """Return a copy of a file in memory. Only the first call makes the copy."""
        if part not in self._copies:
            source = self._mapped[part]
            want_memory("gguf", len(source), f"a copy of {source.name}")
            with _file_in_memory() as target:
                for start in range(0, len(source), _CHUNK):
                    target.write(source.read(start, min(_CHUNK, len(source) - start)).data)
                target.flush()
                self._copies[part] = nn.MappedFile(target, f"the copy of {source.name}")
        return self._copies[part]


def _declared(s: nn.Session, file: nn.MappedFile, sizes: tuple[int, ...], dtype: int, offset: int) -> nn.Tensor:
    """Declare numbers of a file as a weight of the session with one, two or three dimensions."""
    nn.tnn_session_attach_weight_mmap(s, file)
    declare: Callable[..., nn.Tensor] = (
        nn.tnn_input_1d_persistent_mmap,
        nn.tnn_input_2d_persistent_mmap,
        nn.tnn_input_3d_persistent_mmap,
    )[len(sizes) - 1]
    return declare(s, *sizes, dtype, offset)


def _sha256(file: nn.MappedFile) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(file), _CHUNK):
        digest.update(file.read(start, min(_CHUNK, len(file) - start)).data)
    return digest.hexdigest()


def _file_in_memory() -> BinaryIO:
    """Return an empty file in memory."""
    return os.fdopen(os.memfd_create("toynn"), "w+b")
