"""The list of small wrong changes stays true to the code; `python -m tests.mutations` tries them."""

import ast
from functools import cache

import pytest

from tests.mutations import CHAPTERS, ROOT, load_mutations

MUTATIONS = [mutation for chapter in CHAPTERS for mutation in load_mutations(chapter)]


def test_there_are_enough_changes_in_each_chapter_and_none_twice():
    assert len(set(MUTATIONS)) == len(MUTATIONS) >= 200
    assert all(len(load_mutations(chapter)) >= 50 for chapter in CHAPTERS)


@cache
def parse(module):
    """The source of a module, and its syntax tree as text."""
    source = (ROOT / "slpd_core" / module).read_text()
    return source, ast.dump(ast.parse(source))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_change_is_one_and_alters_the_code(mutation):
    source, tree = parse(mutation.module)
    assert ast.dump(ast.parse(mutation.apply(source))) != tree
