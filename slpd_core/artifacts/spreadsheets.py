"""Tables that people write: text separated by commas, semicolons or tabs, in UTF-8 or UTF-16, and Excel's workbooks."""

import codecs
import csv
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from slpd_core.artifacts.column_names import ColumnNames
from slpd_core.runtime import escape_controls, name_some

FIELD_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
WORKBOOK, OLD_WORKBOOK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # first bytes of their files
MAX_FILE_BYTES = 1 << 26  # of a file, and of a workbook unpacked
MAX_CELLS, MAX_ROWS = 5_000_000, 1 << 20
MAX_WHOLE = 10**15  # a workbook rounds numbers from here on
ERRORS = ("#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!")  # of a formula
ROUNDED = re.compile(r"\d([.,]\d+)?E\+\d\d+")  # how a spreadsheet shows a long number
ADVICE = "save it as CSV UTF-8 or as .xlsx"
SAME_NAMES = ColumnNames()
Cell = tuple[str, str]  # a text without spaces at its ends, and its problem, "" for none
Line = tuple[int, list[Cell]]  # the row's number and its cells


@dataclass(frozen=True)
class TextTable:
    """Columns of a table.

    Args:
        rows: Index of each row in the file, from 1, and its texts by column.
        problems: One line per problem of a row.
        header: The names of the file's columns.
    """

    rows: list[tuple[int, dict[str, str]]]
    problems: list[str]
    header: list[str]


def read_text_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    names: ColumnNames = SAME_NAMES,
    ragged: bool = False,
    example: str = "",
) -> TextTable:
    """Read columns of a table that a person or a spreadsheet wrote.

    Args:
        path: A text whose first line names the columns, or a workbook with one such sheet.
        required: Columns that it must have.
        optional: Further columns to read; others are ignored.
        names: The columns' names in the file.
        ragged: Whether a row may end before its last column.
        example: First lines of such a table, for errors.

    Returns:
        The rows that are not blank, without spaces at the ends of their texts.

    Raises:
        ValueError: The file is no such table, or its header lacks a required column or names one twice.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: more than {MAX_FILE_BYTES >> 20} MB, which no table of slides has; correct the path")
    content, columns = path.read_bytes(), [*dict.fromkeys((*required, *optional))]
    if content.startswith(OLD_WORKBOOK):
        raise ValueError(f"{path}: a workbook from before 2007, or one with a password; {ADVICE}")
    if content.startswith(WORKBOOK):
        lines, separator, ragged = _read_workbook(path, content, required, names), "", True
    else:
        lines, separator = _read_text(path, content, names.known(columns), example)
    header = _read_header(path, lines, required, columns, names, example)
    located = names.locate(columns, header)
    rows, problems = [], []
    for row, cells in lines[1:]:
        while len(cells) > len(header) and cells[-1] == ("", ""):
            cells.pop()
        if len(cells) > len(header) or (len(cells) < len(header) and not ragged):
            quote = f"; quote a field that holds a {separator}" if separator else ""
            problems.append(f"row {row}: {len(cells)} fields, the header has {len(header)}{quote}")
            continue
        cells += [("", "")] * (len(header) - len(cells))
        problems += [f"row {row}: {header[i]} {cells[i][1]}" for i in sorted({*located.values()}) if cells[i][1]]
        rows.append((row, {column: cells[i][0] for column, i in located.items()}))
    return TextTable(rows, problems, header)


def row_of_problem(problem: str) -> float:
    """Return the row that a problem of a table begins with, to sort problems by.

    Args:
        problem: Such as "row 7: ...".

    Returns:
        The row; infinity for a problem of the whole table.
    """
    row = re.match(r"row (\d+)", problem)
    return int(row[1]) if row else float("inf")


def _read_text(path: Path, content: bytes, names: Collection[str], example: str) -> tuple[list[Line], str]:
    """The lines of a text that are not blank, and the name of the separator of their fields."""
    text = _decode(path, content)
    directive = re.match(r"sep=([,;\t|])\r?(?=\n)", text, re.IGNORECASE)  # a line that Excel obeys
    text = text[directive.end() :] if directive else text
    first = next((line for line in io.StringIO(text) if line.strip(" ,;\t|\r\n")), "")

    def count_names(separator: str) -> tuple[int, int]:
        """Known names, and fields, which decide where no name is known."""
        fields = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
        return sum(name in names or name.lower() in names for name in fields), len(fields)

    try:
        separator = directive[1] if directive else max(FIELD_SEPARATORS, key=count_names)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [
            (reader.line_num, [_check_text(field) for field in fields])
            for fields in reader
            if any(field.strip() for field in fields)
        ]
    except csv.Error as error:
        shown = f"; the first lines of one:\n{example}" if example else ""
        raise ValueError(f"{path}: not a CSV table ({error}); {ADVICE}{shown}") from error
    return lines, FIELD_SEPARATORS[separator]


def _decode(path: Path, content: bytes) -> str:
    """A file's text, by its byte order mark UTF-16, else UTF-8; raises ValueError if it is neither."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: row {row} is not UTF-8 (byte {content[error.start]:#x}); {ADVICE}") from error
    if "\0" in text:
        raise ValueError(f"{path}: not UTF-8, it contains zero bytes; {ADVICE}")
    return text


def _check_text(field: str) -> Cell:
    """A field's text and its problem."""
    text = field.strip()
    if escape_controls(text) != text:
        return text, f"{text!a} contains invisible characters; retype it"
    if text in ERRORS:
        return text, f"is {text}, the error of a formula; fill it in"
    if ROUNDED.fullmatch(text):
        return text, f"is {text}, a number that a spreadsheet has rounded; format the column as text and fill it in"
    return text, ""


def _read_cell(cell: Any) -> Cell:
    """A workbook's cell as the text it shows."""
    value = cell.value
    if value is None:
        return "", ""
    if isinstance(value, bool | str):
        return _check_text(str(value).upper() if isinstance(value, bool) else value)
    if not isinstance(value, int | float):
        return str(value), f"is the date {value}; format the column as text and fill it in"
    if abs(value) >= MAX_WHOLE:
        return str(value), f"is {value}, more digits than a workbook keeps; format the column as text and fill it in"
    zeros = re.fullmatch(r"0+", cell.number_format)  # 7 shown as 007
    text = str(int(value)) if value == int(value) else repr(value)
    return text.zfill(len(zeros[0])) if zeros else text, ""


def _read_workbook(path: Path, content: bytes, required: Sequence[str], names: ColumnNames) -> list[Line]:
    """The rows that are not blank of the visible sheet that has the columns; raises ValueError if several have them."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    # A broken workbook ends in any of these, depending on where it is broken.
    wrong = (KeyError, ValueError, TypeError, IndexError, AttributeError, EOFError, OSError, NotImplementedError)
    broken = (InvalidFileException, zipfile.BadZipFile, zlib.error, ParseError, *wrong)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            size = sum(item.file_size for item in packed.infolist())
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{size:,} bytes once unpacked")
        with warnings.catch_warnings(action="ignore"):  # of charts, lists of choices and the like
            book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            sheets = {sheet.title: _read_rows(sheet) for sheet in book.worksheets if sheet.sheet_state == "visible"}
    except broken as error:
        raise ValueError(f"{path}: not a whole Excel workbook ({error}); {ADVICE}") from error
    fitting = [title for title, lines in sheets.items() if {*required} == {*names.locate(required, _names(lines))}]
    if len(fitting) > 1:
        raise ValueError(f"{path}: the columns are in several sheets, {', '.join(map(repr, fitting))}; keep one")
    return sheets[fitting[0]] if fitting else next((lines for lines in sheets.values() if lines), [])


def _read_rows(sheet: Any) -> list[Line]:
    """The rows that are not blank; raises ValueError if there are more than a person fills in."""
    sheet.reset_dimensions()  # the size that the file claims is not trusted
    lines, cells = [], 0
    for row, line in enumerate(islice(sheet.iter_rows(), MAX_ROWS + 1), start=1):
        cells += len(line)
        if cells > MAX_CELLS or row > MAX_ROWS:
            raise ValueError("more rows or cells than a sheet of slides has")
        read = [_read_cell(cell) for cell in line]
        if any(text for text, _ in read):
            lines.append((row, read))
    return lines


def _names(lines: list[Line]) -> list[str]:
    """The names of the columns, without unnamed ones at the end."""
    header = [text for text, _ in lines[0][1]] if lines else []
    while header and not header[-1]:
        header.pop()
    return header


def _read_header(
    path: Path, lines: list[Line], required: Sequence[str], columns: Sequence[str], names: ColumnNames, example: str
) -> list[str]:
    """The names of the columns; raises ValueError if a required one is missing or one is listed twice."""
    header, known = _names(lines), names.known(columns)
    wrong = [name for name in header if name not in known and name.lower() in known]
    if wrong:
        raise ValueError(f"{path}: column {', '.join(wrong)}; write {', '.join(name.lower() for name in wrong)}")
    located = names.locate(required, header)
    if missing := [column for column in dict.fromkeys(required) if column not in located]:
        wanted = ", ".join(" or ".join(names.names(column)) for column in missing)
        present = name_some((name[:50] for name in header), 20) or "no column at all"
        shown = f". Example:\n{example}" if example else ""
        remedy = names.describe_missing(missing, header)
        raise ValueError(f"{path}: no column {wanted} among {present}; {remedy}{shown}")
    twice = sorted({name for name in header if header.count(name) > 1 and name in known})
    if twice:
        raise ValueError(f"{path}: column {', '.join(twice)} is listed twice; remove one")
    return header
