"""Check, normalize and compare ids and labels that people typed."""

import re
import unicodedata
from collections.abc import Callable, Iterable

WHOLE_NUMBER = re.compile(r"(\d+)\.0+")  # 101 as pandas reads it in a column with a gap
ID_SEPARATORS = re.compile(r"[\s._-]+")
# Besides letters and digits of any script: characters without a meaning to file systems, shells and patterns.
ID_PUNCTUATION = " ._-()+"
UNSAFE_ID = re.compile(r"^[ .+-]|[ .]$|\.\.")
MAX_ID_BYTES = 200


def is_safe_id(slide_id: str) -> bool:
    """Return whether an id can name files: without a meaning to file systems, shells and Snakemake.

    Args:
        slide_id: The id.

    Returns:
        Whether it can.
    """
    is_safe = all(char in ID_PUNCTUATION or unicodedata.category(char)[0] in "LMN" for char in slide_id)
    return is_safe and 0 < len(slide_id.encode()) <= MAX_ID_BYTES and not UNSAFE_ID.search(slide_id)


def normalize_id(text: str) -> str:
    """Compose a text as Unicode's NFC and strip it, so that the `Müller` of a Mac is that of Windows.

    Args:
        text: An id or a label.

    Returns:
        The text in its one form.
    """
    return unicodedata.normalize("NFC", text).strip()


def fold_id(text: str) -> str:
    """Fold case, widths and runs of spaces of an id, and read 101.0 as 101.

    Args:
        text: An id.

    Returns:
        A key that all spellings of the id share.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return strip_fraction(" ".join(folded.split()))


def strip_fraction(text: str) -> str:
    """Strip the zeros that pandas appends to whole numbers.

    Args:
        text: An id.

    Returns:
        101 for 101.0, any other text as it is.
    """
    match = WHOLE_NUMBER.fullmatch(text)
    return match[1] if match else text


def loosen_id(text: str) -> str:
    """Fold an id as `fold_id`, and also kinds of separators and leading zeros.

    Args:
        text: An id.

    Returns:
        A key that ids share which look alike.
    """
    plain = ID_SEPARATORS.sub("-", fold_id(text))
    return re.sub(r"\d+", lambda digits: digits[0].lstrip("0") or "0", plain)


def group_alike(texts: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """Group different texts that have the same key.

    Args:
        texts: The texts; repeated ones count once.
        key: Key of a text, such as `fold_id`.

    Returns:
        The groups of two or more texts, in order of first appearance.
    """
    groups: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(texts):
        groups.setdefault(key(text), {})[text] = None
    return [[*group] for group in groups.values() if len(group) > 1]
