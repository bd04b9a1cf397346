"""Tables: Parquet, with a checksum per page for other readers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slpd_core.artifacts.checksums import check_seal, stamp, unstamp, write_sealed
from slpd_core.artifacts.files import broken, write_csv
from slpd_core.artifacts.reading import open_file
from slpd_core.artifacts.schema import TABLES, Meta

if TYPE_CHECKING:  # stages of slides start in half the time without it
    import pandas as pd


def write_table(path: Path, name: str, frame: "pd.DataFrame", meta: Meta) -> None:
    """Write a table as Parquet.

    Args:
        path: Of the file.
        name: Of the table in TABLES.
        frame: Its columns; `embedding` holds one float vector (embed_dim,) per row.
        meta: As `provenance` returns; with `embed_dim` for a column `embedding`.

    Raises:
        ValueError: A column of TABLES is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_columns(path, name, frame.columns)
    arrays = {}
    for column in frame.columns:
        if column == "embedding":
            dim = int(meta["embed_dim"])
            flat = np.concatenate([np.empty(0, np.float32), *frame[column]]).astype(np.float32)
            arrays[column] = pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)
        else:
            arrays[column] = pa.Array.from_pandas(frame[column])
    table = pa.table(arrays).replace_schema_metadata({"slpd": json.dumps(meta | stamp(path))})
    file = pa.BufferOutputStream()
    pq.write_table(table, file, write_page_checksum=True)
    write_sealed(path, file.getvalue().to_pybytes())


def write_both(path: Path, name: str, frame: "pd.DataFrame", meta: Meta) -> None:
    """Write a table as Parquet, for later stages, and beside it as CSV, for people.

    Args:
        path: Of the Parquet file; the other ends in .csv.
        name: Of the table in TABLES.
        frame: Its columns, without embeddings.
        meta: As `provenance` returns.

    Raises:
        ValueError: A column of TABLES is missing.
    """
    write_table(path, name, frame, meta)
    write_csv(path.with_suffix(".csv"), frame)


def read_table(path: Path, name: str | None = None) -> "tuple[pd.DataFrame, Meta]":
    """Read a table that `write_table` wrote.

    Args:
        path: Of the file.
        name: Of the table in TABLES, whose columns it must have; without it any table is read.

    Returns:
        The table and the metadata; a column `embedding` holds one float32 (embed_dim,) per row.

    Raises:
        ValueError: The file is broken or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(path) as file:
        check_seal(path, file)
        try:
            with pq.ParquetFile(path, memory_map=True) as content:
                table = content.read()
        except (pa.ArrowInvalid, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise ValueError(broken(path, str(error))) from error
    meta = unstamp(path, json.loads((table.schema.metadata or {}).get(b"slpd", b"{}")))
    if name is not None:
        _check_columns(path, name, table.column_names)
    if "embedding" not in table.column_names:
        return table.to_pandas(), meta
    frame = table.drop_columns(["embedding"]).to_pandas()
    frame["embedding"] = _embedding_rows(table)
    return frame, meta


def _embedding_rows(table: Any) -> list[np.ndarray]:
    """The `embedding` column of an Arrow table as one float32 (dim,) per row; views, not copies."""
    column = table.column("embedding")
    flat = (chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks)
    return [row for values in flat for row in values.reshape(-1, column.type.list_size)]


def _check_columns(path: Path, name: str, columns: Sequence[str]) -> None:
    """Raise ValueError if a column of the table `name` of TABLES is missing."""
    missing = [column for column in TABLES[name] if column not in columns]
    if missing:
        raise ValueError(broken(path, f"a {name} table without {missing}"))
