"""Texts for messages: control characters are escaped and long lists are cut."""

import unicodedata
from collections.abc import Iterable


def _is_visible(character: str) -> bool:
    """Whether a character is visible or a space of any width, and not a control character."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def escape_controls(text: str, keep: str = "") -> str:
    """Escape control characters, which would steer a terminal.

    Args:
        text: The text.
        keep: Control characters to keep.

    Returns:
        The text, with escapes such as \\x1b.
    """
    return "".join(c if _is_visible(c) or c in keep else ascii(c)[1:-1] for c in text)


def name_some(names: Iterable[object], max_names: int = 5) -> str:
    """Join the first names of a list for a message, and count the others.

    Args:
        names: The names; control characters are escaped.
        max_names: Names to write out.

    Returns:
        Such as "a, b, c, d, e and 12 more".
    """
    listed = [escape_controls(str(name)) for name in names]
    more = f" and {len(listed) - max_names:,} more" if len(listed) > max_names else ""
    return ", ".join(listed[:max_names]) + more
