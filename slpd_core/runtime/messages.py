"""Texts of messages: control characters are escaped and long lists are cut."""

import unicodedata
from collections.abc import Iterable


def is_shown(sign: str) -> bool:
    """Return whether a character is visible or a space, not a control character.

    Args:
        sign: One character.

    Returns:
        Whether a terminal shows it.
    """
    return sign.isprintable() or unicodedata.category(sign) == "Zs"


def escape_controls(text: str, keep: str = "") -> str:
    """Escape control characters, for example as \\x1b.

    Args:
        text: Of any origin.
        keep: Characters that stay.

    Returns:
        A text that steers no terminal.
    """
    return "".join(sign if is_shown(sign) or sign in keep else ascii(sign)[1:-1] for sign in text)


def name_some(names: Iterable[object], most: int = 5) -> str:
    """Join names for a message: the first few, and how many more there are.

    Args:
        names: Any objects.
        most: Names that are listed.

    Returns:
        For example "a, b and 3 more".
    """
    listed = [escape_controls(str(name)) for name in names]
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
