"""Texts for messages: nothing in them steers a terminal, and long lists are cut."""

import unicodedata
from collections.abc import Iterable


def is_shown(sign: str) -> bool:
    """Return whether a sign shows, as letters and spaces of any width do, and controls of a terminal do not."""
    return sign.isprintable() or unicodedata.category(sign) == "Zs"


def escape_controls(text: str, keep: str = "") -> str:
    """Return a text in which what would steer a terminal is written out, as \\x1b; the signs to keep stay."""
    return "".join(sign if is_shown(sign) or sign in keep else ascii(sign)[1:-1] for sign in text)


def name_some(names: Iterable[object], most: int = 5) -> str:
    """Join names for a message: the first few, and how many more there are."""
    listed = [escape_controls(str(name)) for name in names]
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
