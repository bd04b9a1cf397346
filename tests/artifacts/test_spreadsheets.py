"""Tables are read as people's spreadsheets write them, or named for what they are."""

import contextlib
import io
import re
import zipfile
from datetime import date

import numpy as np
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.artifacts import spreadsheets
from slpd_core.artifacts.spreadsheets import read_text_table

ROWS = [["slide", "label", "note"], ["s1", "a, b", "x"], ["", "", ""], ["s2", "c;d", ""], ["s3", "é", "y"]]
READ = [(2, {"slide": "s1", "label": "a, b"}), (4, {"slide": "s2", "label": "c;d"}), (5, {"slide": "s3", "label": "é"})]


EMPTY_ZIP = io.BytesIO()
with zipfile.ZipFile(EMPTY_ZIP, "w") as file:
    file.writestr("[Content_Types].xml", "<Types/>")
EMPTY_ZIP = EMPTY_ZIP.getvalue()


def write_book(path, *sheets, change=lambda sheet: None):
    """Write a workbook of sheets, each a list of rows."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
        change(sheet)
    book.save(path)


def quoted(separator: str, end: str = "\n") -> str:
    return "".join(separator.join(f'"{text}"' for text in row) + end for row in ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("before", ["", "sep=#\r\n"])
def test_a_text_is_read_whatever_separates_its_fields(tmp_path, separator, encoding, before):
    text = before.replace("#", separator) + quoted(separator, "\r\n")
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    table = read_text_table(tmp_path / "a.csv", ["slide"], ["label", "mpp"])
    assert [row for _, row in table.rows] == [row for _, row in READ]
    assert [number for number, _ in table.rows] == [number + bool(before) for number, _ in READ]
    assert table.problems == []


@given(st.lists(st.text(st.characters(categories="LN"), min_size=1), min_size=1, max_size=5), st.sampled_from(",;\t|"))
def test_what_was_written_is_read(tmp_path_factory, texts, separator):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(separator.join(["a", "b"]) + "\n" + "".join(f"{text}{separator}1\n" for text in texts), "utf-8")
    assert [row["a"] for _, row in read_text_table(path, ["a", "b"]).rows] == texts


def test_a_workbook_is_read_by_the_sheet_that_has_the_columns(tmp_path):
    write_book(tmp_path / "a.xlsx", [["about"], ["me"]], ROWS)
    table = read_text_table(tmp_path / "a.xlsx", ["slide"], ["label"])
    assert (table.rows, table.problems) == (READ, [])
    write_book(tmp_path / "a.xlsx", ROWS, ROWS)
    with pytest.raises(ValueError, match=r"several sheets, 'sheet 0', 'sheet 1'; keep one"):
        read_text_table(tmp_path / "a.xlsx", ["slide"])


def test_a_workbooks_numbers_are_read_as_it_shows_them(tmp_path):
    def show_zeros(sheet):
        sheet["A3"].number_format = "000"

    rows = [["slide", "mpp"], [101.0, 0.25], [7, 0.5], ["007", None], [True, "0,5"]]
    write_book(tmp_path / "a.xlsx", rows, change=show_zeros)
    table = read_text_table(tmp_path / "a.xlsx", ["slide"], ["mpp"])
    assert [[*row.values()] for _, row in table.rows] == [
        ["101", "0.25"], ["007", "0.5"], ["007", ""], ["TRUE", "0,5"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (date(2026, 3, 1), "row 2: slide is the date 2026-03-01 00:00:00; format the column as text"),
        (1234567890123456789, "more digits than a workbook keeps"),
        ("#N/A", "is #N/A, the error of a formula"),
        ("a\u202eb", r"row 2: slide 'a\u202eb' contains invisible characters"),
    ],
)
def test_a_cell_that_does_not_say_what_was_typed_is_named(tmp_path, value, what):
    write_book(tmp_path / "a.xlsx", [["slide"], [value]])
    (problem,) = read_text_table(tmp_path / "a.xlsx", ["slide"]).problems
    assert what in problem


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xd0\xcf\x11\xe0 old", "a workbook from before 2007, or one with a password; save it as CSV UTF-8"),
        (b"PK\3\4 torn", "not a whole Excel workbook"),
        (EMPTY_ZIP, "not a whole Excel workbook"),
        ("slide\nM\u00fcller".encode("latin-1"), r"row 2 is not UTF-8 \(byte 0xfc\); save it as CSV UTF-8"),
        ("slide\na".encode("utf-16-le"), "it contains zero bytes; save it"),
        (b"a:slide\n1:2", "no column slide among a:slide; add it"),
        (b"slide,slide\n1,2", "column slide is listed twice"),
        (b"Slide\n1", "column Slide; write slide"),
        (b"\x1b[31mslide\n1", r"no column slide among \\x1b\[31mslide; add it"),
        (b'slide\n"a', "not a CSV table"),
    ],
    ids=lambda part: re.sub(r"\W+", " ", ascii(part))[:30],
)
def test_what_is_no_such_table_is_named(tmp_path, content, what):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.csv: .*{what}"):
        read_text_table(tmp_path / "a.csv", ["slide"])


def test_a_row_of_another_length_is_named_unless_rows_may_end_early(tmp_path):
    (tmp_path / "a.csv").write_text("a;b\n1;2;;\n1;2;3\n1\n")
    assert read_text_table(tmp_path / "a.csv", ["a", "b"]).problems == [
        "row 3: 3 fields, the header has 2; quote a field that holds a semicolon",
        "row 4: 1 fields, the header has 2; quote a field that holds a semicolon",
    ]
    table = read_text_table(tmp_path / "a.csv", ["a", "b"], ragged=True)
    assert table.rows == [(2, {"a": "1", "b": "2"}), (4, {"a": "1", "b": ""})]


@given(st.binary(max_size=200) | st.text("sep=,;|\t\r\n\"'ab", max_size=40).map(str.encode), st.booleans())
def test_any_bytes_are_a_table_or_named(tmp_path_factory, content, ragged):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):  # and no other error
        read_text_table(path, ["a"], ["b"], ragged=ragged)


def test_a_damaged_workbook_is_read_or_named(tmp_path):
    """Bytes of the file, and of what is packed in it, put in another's place."""
    path, rng = tmp_path / "a.xlsx", np.random.default_rng(0)
    write_book(path, ROWS)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    for attempt in range(80):
        if attempt % 2:
            damaged = bytearray(whole)
            damaged[int(rng.integers(4, len(whole)))] ^= 1 << int(rng.integers(8))
        else:
            packed, hit = io.BytesIO(), rng.choice([*parts])
            with zipfile.ZipFile(packed, "w") as book:
                for name, content in parts.items():
                    at = int(rng.integers(len(content))) if name == hit else len(content)
                    book.writestr(name, content[:at] + b'<"1'[attempt % 3 :][:1] + content[at + 1 :])
            damaged = packed.getvalue()
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):  # and no other error
            read_text_table(path, ["slide"], ["label"])


def test_a_workbook_takes_no_more_memory_than_it_holds(tmp_path, monkeypatch):
    """One that unpacks to gigabytes, and cells and rows that only their numbers make many."""
    path = tmp_path / "a.xlsx"
    monkeypatch.setattr(spreadsheets, "MAX_FILE_BYTES", 1 << 18)
    monkeypatch.setattr(spreadsheets, "MAX_CELLS", 100_000)
    write_book(path, ROWS)
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    (name,) = [name for name in parts if "worksheets/" in name]
    rows = "".join(f'<row r="{row}"><c r="ZZZ{row}"><v>1</v></c></row>' for row in range(1, 10))
    for sheet in (
        b" " * (1 << 18),
        rows.encode(),
        b'<row r="99999999999"><c r="A99999999999"><v>1</v></c></row>',
    ):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as book:
            for part, content in parts.items():
                head = content.partition(b"<sheetData>")[0] + b"<sheetData>"
                book.writestr(part, head + sheet + b"</sheetData></worksheet>" if part == name else content)
        path.write_bytes(packed.getvalue())
        with pytest.raises(ValueError, match=r"a\.xlsx: not a whole Excel workbook \(.*(unpacked|more rows or cells)"):
            read_text_table(path, ["slide"])
