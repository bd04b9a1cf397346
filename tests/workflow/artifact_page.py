"""Hold docs/artifacts.md against files: what each really has, in the page's terms."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import pyarrow.parquet as pq

from slpd_core.artifacts.weights import read_weights

PAGE = Path(__file__).parents[2] / "docs" / "artifacts.md"
ARROW = {
    "large_string": "text",
    "string": "text",
    "double": "float64",
    "list<element: float>": "float32 list",
    "list<item: float>": "float32 list",
}
# The kinds of entries that a file has by its suffix; metadata of HDF5 are attributes.
KINDS = {
    ".h5": ("array", "attribute", "metadata"),
    ".parquet": ("column", "metadata"),
    ".csv": ("column",),
    ".safetensors": ("tensor", "metadata"),
    ".geojson": ("metadata", "property"),
    ".png": ("metadata",),
    ".jpg": ("metadata",),
}


@dataclass(frozen=True)
class Entry:
    """A line of the page, or what a file has: kind ("array" ...), name, dtype and shape ("" where it says none)."""

    kind: str
    name: str
    dtype: str = ""
    shape: str | tuple[int, ...] = ""


@dataclass
class Section:
    """A section of the page: the files it is about and its entries, those it links to among them."""

    names: list[str]
    entries: list[Entry] = field(default_factory=list)
    seen: list[Entry] = field(default_factory=list)


def pattern(name: str) -> re.Pattern[str]:
    """What a name with {placeholders} stands for; a job's may hold slashes."""
    parts = re.split(r"(\{\w+\})", name)
    return re.compile(
        "".join(".+" if part == "{job}" else "[^/]+" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def read_page() -> dict[str, Section]:
    """The sections of the page by anchor; each has the entries of those that its text links to, but not its tables."""
    blocks = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    texts = {anchor(block.partition("\n")[0]): block.partition("\n## ")[0] for block in blocks}

    def entries_of(key: str) -> list[Entry]:
        lines = texts[key].splitlines()
        prose = "\n".join(line for line in lines if not line.startswith("|"))
        linked = [entry for link in re.findall(r"\]\(#([^)]+)\)", prose) for entry in entries_of(link)]
        return [*linked, *read_tables(lines)]

    return {
        key: Section(re.findall(r"`([^`]+)`", text.partition("\n")[0]), entries_of(key)) for key, text in texts.items()
    }


def read_tables(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a section's tables."""
    head: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells or set(line) <= {*"|- "}:
            head = head if cells else []
        elif not head:
            head = cells
        else:
            row = dict(zip(head, cells, strict=True))
            kind = head[0]
            yield Entry(kind, row[kind].strip("`"), row.get("dtype", ""), row.get("shape", ""))


def read_file(path: Path) -> list[Entry]:
    """What a file holds: arrays, columns and metadata."""
    readers = {".h5": hdf5, ".parquet": parquet, ".safetensors": safetensors, ".csv": table, ".geojson": geojson}
    return [*readers.get(path.suffix, checked_only)(path)]


def hdf5(path: Path) -> Iterator[Entry]:
    with h5py.File(path) as file:
        for name, dataset in file.items():
            yield Entry("array", name, "text" if dataset.dtype.kind == "O" else str(dataset.dtype), dataset.shape)
            for key, value in dataset.attrs.items():
                yield Entry("attribute", f"{name}.{key}", "text" if isinstance(value, str) else str(value.dtype))
        for key, value in file.attrs.items():
            yield Entry("attribute", key, "text" if isinstance(value, str) else str(value.dtype))


def parquet(path: Path) -> Iterator[Entry]:
    schema = pq.read_schema(path)
    for name, kind in zip(schema.names, map(str, schema.types), strict=True):
        yield Entry(
            "column",
            name,
            "float32 list" if kind.startswith("fixed_size_list<element: float>") else ARROW.get(kind, kind),
        )
    yield from (Entry("metadata", key) for key in json.loads(schema.metadata[b"slpd"]))


def safetensors(path: Path) -> Iterator[Entry]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    yield from (Entry("metadata", key) for key in json.loads(header["__metadata__"]["slpd"]))
    tensors, _ = read_weights(path)
    yield from (Entry("tensor", name, str(tensor.dtype), tensor.shape) for name, tensor in tensors.items())


def table(path: Path) -> Iterator[Entry]:
    with path.open() as file:
        yield from (Entry("column", name) for name in next(csv.reader(file)))


def geojson(path: Path) -> Iterator[Entry]:
    collection = json.loads(path.read_text())
    yield from (Entry("metadata", key) for key in collection["slpd"])
    yield from (Entry("property", key) for feature in collection["features"][:1] for key in feature["properties"])


def checked_only(path: Path) -> Iterator[Entry]:
    """A picture carries its name and checksum; other files nothing."""
    trailer = path.read_bytes().rpartition(b"\nslpd ")[2] if path.suffix in (".png", ".jpg") else b""
    if trailer.startswith(b"{"):
        yield from (Entry("metadata", key) for key in json.loads(trailer))


def find_gaps(folders: Iterable[Path], unmade: Iterable[str]) -> list[str]:
    """Hold the page against all files of some cohorts' results.

    Args:
        folders: The results of the cohorts.
        unmade: File names of the page of which none of them has one.

    Returns:
        A line for each file, entry, dtype or shape that differs; empty where page and files say the same.
    """
    names = {name: section for section in read_page().values() for name in section.names}
    gaps, missing = [], dict.fromkeys({*names} - {*unmade}, "no such file")
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        file = re.search(r"results/[^/]+/(.+)", path.as_posix())[1]
        matching = [name for name in names if pattern(name).fullmatch(file)]
        missing = {key: gap for key, gap in missing.items() if key not in matching}
        gaps += [] if len(matching) == 1 else [f"{file}: {len(matching)} names of the page fit"]
        for name in matching:
            gaps += compare(file, read_file(path), names[name])
    for section in names.values():
        kinds = {kind for name in section.names for kind in KINDS.get(Path(name).suffix, ())}
        lines = [entry for entry in section.entries if entry.kind in kinds and entry not in section.seen]
        gaps += [f"{section.names[0]}: {entry.kind} {entry.name} is in no file" for entry in lines]
    return [*gaps, *(f"{name}: {gap}" for name, gap in missing.items())]


def compare(file: str, entries: Iterable[Entry], section: Section) -> Iterator[str]:
    """Yield the entries of a file that the page lacks or has otherwise; note those that it has."""
    kinds, sizes = KINDS.get(Path(file).suffix, ()), {}
    documented = [entry for entry in section.entries if entry.kind in kinds]
    for entry in entries:
        kind = ("attribute", "metadata") if entry.kind == "attribute" else (entry.kind,)
        fitting = [line for line in documented if line.kind in kind and fits(entry, line, sizes)]
        section.seen += fitting
        if not fitting:
            yield f"{file}: {entry.kind} {entry.name} {entry.dtype} {entry.shape}"


def fits(entry: Entry, line: Entry, sizes: dict[str, int]) -> bool:
    """Tell whether a line of the page is about an entry; sizes: of the letters in the shapes of its file, so far."""
    if not pattern(line.name).fullmatch(entry.name) or (entry.dtype and line.dtype not in ("", entry.dtype)):
        return False
    if not line.shape:
        return True
    letters = re.findall(r"\w+", line.shape)
    same = len(letters) == len(entry.shape)
    return same and all(
        size == (int(x) if x.isdigit() else sizes.setdefault(x, size))
        for x, size in zip(letters, entry.shape, strict=True)
    )
