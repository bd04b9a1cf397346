"""Tests: docs/glossary.md gives each term and letter one meaning, and the package defines each name once."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_EACH_STAGE = {"run", "main", "VERSION", "log"}
# Names that two modules still define; take a name out as soon as one of them has another.
DEFINED_TWICE = {
    "PRESETS",
    "T",
    "train",
}


def glossary(heading: str) -> list[str]:
    """First column of the table below a heading of the glossary."""
    text = (ROOT / "docs" / "glossary.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)[1:]


def trees() -> dict[str, ast.Module]:
    """Syntax tree of each module of the package."""
    return {str(path): ast.parse(path.read_text()) for path in sorted((ROOT / "slpd_core").rglob("*.py"))}


def defined_names(tree: ast.Module) -> set[str]:
    """Public names that a module defines at its top level; imported ones are another module's."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")} - OF_EACH_STAGE


def test_each_term_and_letter_has_one_meaning():
    terms, letters = glossary("Terms"), glossary("Letters")
    assert {"region", "patch", "token", "prototype", "ledger", "mpp"} <= set(terms)
    assert {*"NMKLDB"} <= set(letters)
    counts = Counter(term.casefold() for term in terms) + Counter(letters)
    assert [term for term, count in counts.items() if count > 1] == []


def test_each_capital_letter_that_is_a_parameter_is_in_the_glossary():
    arguments = {node.arg for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.arg)}
    letters = {name for name in arguments if re.fullmatch("[A-Z]", name)}
    assert letters, "no parameter is a letter"
    assert letters <= set(glossary("Letters"))


def test_no_public_name_is_defined_in_two_modules():
    counts = Counter(name for tree in trees().values() for name in defined_names(tree))
    twice = {name for name, count in counts.items() if count > 1}
    assert twice - DEFINED_TWICE == set(), "defined in two modules"
    assert DEFINED_TWICE - twice == set(), "no longer defined twice: take these out of the list"
