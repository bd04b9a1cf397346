"""Normalize and compare ids and labels that people typed."""

import re
import unicodedata
from collections.abc import Callable, Iterable

WHOLE_NUMBER = re.compile(r"(\d+)\.0+")  # what pandas makes of 101 in a column with a gap
SEPARATORS = re.compile(r"[\s._-]+")


def normalize_id(text: str) -> str:
    """Normalize a text to Unicode NFC, so that the `Müller` of macOS is that of Windows.

    Args:
        text: As typed.

    Returns:
        The text without spaces at its ends.
    """
    return unicodedata.normalize("NFC", text).strip()


def fold_id(text: str) -> str:
    """Map all spellings of an id to one: case, widths, runs of spaces, and 101.0 for 101.

    Args:
        text: An id.

    Returns:
        The key that the spellings share.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return without_fraction(" ".join(folded.split()))


def without_fraction(text: str) -> str:
    """Remove the fraction .0 of a whole number.

    Args:
        text: For example 101.0.

    Returns:
        101; any other text unchanged.
    """
    number = WHOLE_NUMBER.fullmatch(text)
    return number[1] if number else text


def loosen_id(text: str) -> str:
    """Map ids that are easily confused to one: `fold_id` without kinds of separators and leading zeros.

    Args:
        text: An id.

    Returns:
        The key that they share.
    """
    plain = SEPARATORS.sub("-", fold_id(text))
    return re.sub(r"\d+", lambda number: number[0].lstrip("0") or "0", plain)


def group_alike(texts: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """Group different texts that have the same key.

    Args:
        texts: May repeat.
        key: For example `fold_id`.

    Returns:
        Groups of two or more, in the order of first appearance.
    """
    groups: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(texts):
        groups.setdefault(key(text), {})[text] = None
    return [[*group] for group in groups.values() if len(group) > 1]
