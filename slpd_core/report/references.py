"""References of the methods paragraph: BibTeX entries by key, and citations in a text as [@key; @key]."""

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib import resources

CITATION = re.compile(r"\[@[^]]+\]")
ACCENT = re.compile(r"""\{\\['"]([a-zA-Z])\}""")
ACUTE, DIAERESIS = "\N{COMBINING ACUTE ACCENT}", "\N{COMBINING DIAERESIS}"


@cache
def read_references() -> dict[str, str]:
    """Read the references that methods can cite.

    Returns:
        BibTeX entries by key.
    """
    text = resources.files(__package__).joinpath("references.bib").read_text("utf-8")
    entries = [entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE) if entry.strip()]
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in entries}


def list_citations(text: str) -> list[str]:
    """List the keys that a text cites.

    Args:
        text: With citations.

    Returns:
        Each key once, in the order of the text.
    """
    marks = CITATION.findall(text)
    return [*dict.fromkeys(key for mark in marks for key in re.findall(r"@([\w:-]+)", mark))]


def select_references(text: str, more: Mapping[str, str]) -> dict[str, str]:
    """Select the references that a text cites.

    Args:
        text: With citations.
        more: Entries by key beside those of `read_references`.

    Returns:
        BibTeX entries by key, in the order of the text.
    """
    known = {**read_references(), **more}
    return {key: known[key] for key in list_citations(text)}


def name_citations(text: str, references: Mapping[str, str]) -> str:
    """Write citations as authors and year.

    Args:
        text: With citations.
        references: The entries that it cites, by key.

    Returns:
        The text with citations such as (Yu et al., 2023).
    """

    def name(mark: re.Match[str]) -> str:
        return f"({'; '.join(_name_entry(references[key]) for key in list_citations(mark[0]))})"

    return CITATION.sub(name, text)


def _name_entry(entry: str) -> str:
    """Authors and year of an entry, such as "Loshchilov and Hutter, 2019"; an entry without a year has none."""
    authors = [author.partition(",")[0].strip() for author in _read_field(entry, "author").split(" and ")]
    names = f"{authors[0]} et al." if len(authors) > 2 else " and ".join(authors)
    return ", ".join(filter(None, (names, _read_field(entry, "year"))))


def _read_field(entry: str, field: str) -> str:
    r"""Value of a field of an entry as plain text; "" where it has none. Accents are {\'e} or {\"a}."""
    line = re.search(rf"^\s*{field}\s*=\s*\{{(.*)\}},?$", entry, re.MULTILINE)
    return ACCENT.sub(_compose, line[1]).replace("{", "").replace("}", "") if line else ""


def _compose(accent: re.Match[str]) -> str:
    """The letter with its accent."""
    return unicodedata.normalize("NFC", accent[1] + (ACUTE if "'" in accent[0] else DIAERESIS))


def format_bibtex(references: Mapping[str, str]) -> str:
    """Format entries as a BibTeX file.

    Args:
        references: Entries by key.

    Returns:
        Its text.
    """
    return "\n\n".join(references.values()) + "\n"
