"""Ids are compared as people mean them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.artifacts.ids import fold_id, group_alike, is_safe_id, loosen_id, normalize_id
from slpd_core.runtime import name_some


@given(st.text(max_size=20))
def test_an_id_has_one_form_however_it_is_composed(text):
    forms = {normalize_id(f" {unicodedata.normalize(form, text)}\t") for form in ("NFC", "NFD")}
    assert forms == {unicodedata.normalize("NFC", text).strip()}
    assert len({fold_id(form) for form in (text, *forms)}) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [("p1", " P1 "), ("Müller", "MU\u0308LLER"), ("GRÖSSE", "größe"), ("a  b", "a\u00a0b"), ("101.0", "101")],
)
def test_spellings_of_one_id_are_one(a, b):
    assert fold_id(a) == fold_id(b)
    assert loosen_id(a) == loosen_id(b)


@pytest.mark.parametrize(("a", "b"), [("p1", "p01"), ("p-1", "P_1"), ("0", "00"), ("a.1", "a 1")])
def test_ids_easily_taken_for_one_are_two_that_look_alike(a, b):
    assert fold_id(a) != fold_id(b)
    assert loosen_id(a) == loosen_id(b)


@pytest.mark.parametrize(("a", "b"), [("p1", "p10"), ("1-11", "11-1"), ("p53+", "p53-a"), ("101.5", "101")])
def test_other_ids_are_others(a, b):
    assert loosen_id(a) != loosen_id(b)


def test_those_alike_come_in_groups():
    assert group_alike(["b", "a", "B", "c", "A", "b"], fold_id) == [["b", "B"], ["a", "A"]]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["a", 7], "a, 7"),
        ("abcde", "a, b, c, d, e"),
        ("abcdefg", "a, b, c, d, e and 2 more"),
        (["a\x1b[31m\n", "\u202eb", "Mu\u0308ller\u3000"], "a\\x1b[31m\\n, \\u202eb, Mu\u0308ller\u3000"),
    ],
)
def test_of_many_names_some_are_named_and_none_steers_a_terminal(names, said):
    assert name_some(names) == said


@pytest.mark.parametrize(
    ("slide_id", "is_safe"), [("a" * 200, True), ("a" * 201, False), ("ä" * 100, True), ("ä" * 101, False), ("", False)]
)
def test_an_id_is_as_long_as_file_systems_take_in_bytes(slide_id, is_safe):
    assert is_safe_id(slide_id) == is_safe
