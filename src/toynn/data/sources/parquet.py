"""Read a Parquet file, a few rows at a time. Needs the library pyarrow (extra toynn[parquet])."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toynn.data.sources.items import LONGEST_ITEM, Item, too_long
from toynn.errors import FileFormatError
from toynn.extras import naming_the_extra
from toynn.storage.regular_files import open_regular
from toynn.tinynn.memory import want_memory

MAGIC = b"PAR1"
_ROWS = 64  # number of rows that are converted to Python objects at once


def parquet_rows(path: Path, wanted: Collection[str]) -> Iterator[Item]:
    """Yield the rows of a file as items.

    wanted: the names of the columns to read. A column that the file does not have is ignored.

    Row groups are read one after another, so the memory for the largest row group must be available.

    Raises FileFormatError if the file is damaged; TinyNNMemoryError if there is not enough memory; or OSError if the
    file cannot be read.
    """
    place = 0
    with _opened(path) as rows:
        columns = [name for name in rows.schema_arrow.names if name in wanted]
        for group in range(rows.num_row_groups):
            size = rows.metadata.row_group(group).total_byte_size
            want_memory("texts", max(size, 0), f"the row groups of {path}")
            for batch in rows.iter_batches(_ROWS, row_groups=[group], columns=columns, use_threads=False):
                yield from _items(batch, place)
                place += batch.num_rows


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a file. Raises FileFormatError if the file is damaged, or OSError if the file
    cannot be read.
    """
    with _opened(path) as rows:
        names: list[str] = rows.schema_arrow.names
    return names


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with naming_the_extra():
        import pyarrow as pa
        from pyarrow import parquet
    try:
        with open_regular(path) as file, parquet.ParquetFile(file, pre_buffer=False) as rows:
            yield rows
    except pa.ArrowException as error:
        raise FileFormatError(
            f"{path} is damaged: {' '.join(str(error).split()):.200}; use an intact copy of the file"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise FileFormatError(
            f"{path} is damaged: {' '.join(str(error).split()):.200}; use an intact copy of the file"
        ) from None


def _items(batch: Any, before: int) -> Iterator[Item]:
    """Yield the rows of a batch. before: the number of rows before the batch."""
    try:
        if batch.nbytes <= LONGEST_ITEM:  # if the whole batch is small enough, no row is too long
            for i, row in enumerate(batch.to_pylist()):
                yield Item(before + i + 1, _without_nulls(row))
            return
    except UnicodeDecodeError:
        pass  # the rows are converted one by one, to find the row with this error
    for i in range(batch.num_rows):
        yield _row(before + i + 1, batch.slice(i, 1))


def _row(place: int, row: Any) -> Item:
    if row.nbytes > LONGEST_ITEM:
        return too_long(place, "row")
    try:
        return Item(place, _without_nulls(row.to_pylist()[0]))
    except UnicodeDecodeError:
        return Item(place, None, "a text of the row is not UTF-8")


def _without_nulls(value: Any) -> Any:
    """Drop the keys whose value is null: in Parquet, all objects of a column have the keys of every object."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
