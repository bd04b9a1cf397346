"""The names of a table's columns: ours, those that a setting states, and those that people use."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

MIN_SIMILARITY = 0.8  # of two names of which one may stand for the other


@dataclass(frozen=True)
class ColumnNames:
    """The names that columns may have in a file; a column that no setting renames has its own.

    Attributes:
        setting: Key of the setting that renames columns, for errors; "" if there is none.
        renamed: By column, its names in the file; the first that the file has counts.
        aliases: By column, names that people use for it, which errors suggest.
    """

    setting: str = ""
    renamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def names(self, column: str) -> tuple[str, ...]:
        """Return the names that a column may have in the file.

        Args:
            column: Our name.

        Returns:
            The names, the best first.
        """
        return self.renamed.get(column, (column,))

    def known(self, columns: Iterable[str]) -> set[str]:
        """Return all names that columns may have in the file.

        Args:
            columns: Our names.

        Returns:
            The names.
        """
        return {name for column in columns for name in self.names(column)}

    def locate(self, columns: Iterable[str], header: Sequence[str]) -> dict[str, int]:
        """Find columns in a header.

        Args:
            columns: Our names.
            header: The names in the file.

        Returns:
            By column that the file has, its index.
        """
        located = {column: next((name for name in self.names(column) if name in header), None) for column in columns}
        return {column: header.index(name) for column, name in located.items() if name is not None}

    def find_alias(self, column: str, header: Sequence[str]) -> str | None:
        """Find the name in a header that people use for a column, whatever its case and separators.

        Args:
            column: Our name.
            header: The names in the file.

        Returns:
            The name; None if there is none.
        """
        plain = {_plain(name): name for name in reversed(header)}
        aliases = map(_plain, (column, *self.aliases.get(column, ())))
        return next((plain[alias] for alias in aliases if alias in plain), None)

    def describe_missing(self, missing: Sequence[str], header: Sequence[str]) -> str:
        """Name columns that a file lacks, and the remedy.

        Args:
            missing: Our names.
            header: The names in the file.

        Returns:
            The clause after "no column ... among ...; ".
        """
        wrong = [column for column in missing if column in self.renamed]
        if wrong:
            return f"correct {' and '.join(f'{self.setting}.{column}' for column in wrong)}{self._guess(wrong, header)}"
        suggestions = {column: self.find_alias(column, header) or _closest(column, header) for column in missing}
        pairs = ", ".join(f"{column}: {quote_name(name)}" for column, name in suggestions.items() if name)
        return f"add it, or did you mean {self.setting}: {{{pairs}}}?" if pairs and self.setting else "add it"

    def _guess(self, columns: Sequence[str], header: Sequence[str]) -> str:
        """The names in a header that are close to those that a setting states."""
        close = [_closest(name, header) for column in columns for name in self.names(column)[:1]]
        return f" (did you mean {', '.join(map(quote_name, filter(None, close)))}?)" if any(close) else ""


def quote_name(name: str) -> str:
    """Quote a name from a file as YAML needs it, without invisible characters.

    Args:
        name: The name.

    Returns:
        The name as it is where it consists of words; else the first 50 characters in quotes.
    """
    return name if re.fullmatch(r"[^\W\d][\w -]{0,49}", name) else json.dumps(name[:50])


def _plain(name: str) -> str:
    """A name without case and separators."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _closest(name: str, header: Sequence[str]) -> str | None:
    """The name in a header that is most similar to a name; None if none is similar."""
    plain = {_plain(other): other for other in reversed(header)}
    close = get_close_matches(_plain(name), plain, n=1, cutoff=MIN_SIMILARITY)
    return plain[close[0]] if close else None
