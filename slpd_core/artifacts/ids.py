"""Ids and labels as people write them: brought to one form, compared as they are meant, and quoted in messages."""

import re
import unicodedata
from collections.abc import Callable, Iterable

WHOLE_NUMBER = re.compile(r"(\d+)\.0+")  # what pandas makes of 101 in a column with a gap
SEPARATORS = re.compile(r"[\s._-]+")


def normalize_id(text: str) -> str:
    """Return a text composed as Unicode's NFC, without spaces at its ends.

    So the `Müller` of a Mac is that of Windows.
    """
    return unicodedata.normalize("NFC", text).strip()


def fold_id(text: str) -> str:
    """Return what all spellings of an id share: it ignores case, widths and runs of spaces, and reads 101.0 as 101."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return without_fraction(" ".join(folded.split()))


def without_fraction(text: str) -> str:
    """Return 101 for 101.0, and any other text as it is."""
    number = WHOLE_NUMBER.fullmatch(text)
    return number[1] if number else text


def loosen_id(text: str) -> str:
    """Return what ids share that are easily taken for one: `fold_id` without kinds of separators and leading zeros."""
    plain = SEPARATORS.sub("-", fold_id(text))
    return re.sub(r"\d+", lambda number: number[0].lstrip("0") or "0", plain)


def group_alike(texts: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """Return each group of different texts that have one key, in the order of their first appearance."""
    groups: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(texts):
        groups.setdefault(key(text), {})[text] = None
    return [[*group] for group in groups.values() if len(group) > 1]
