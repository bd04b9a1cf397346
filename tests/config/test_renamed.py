"""A key or value of an earlier version ends in a line that names the new one, wherever it may stand."""

import pytest

from slpd_core import config
from slpd_core.config import renamed
from tests.shipped_config import read_shipped

SHIPPED = read_shipped()
NAMED = {today: path for path, today in renamed.NAMED.items() if path != today}  # "pretrain" -> "pretrain.runs"


def set_at(path, key, value):
    """The shipped settings with a key more at a path, whose sections are copied."""
    settings = below = dict(SHIPPED)
    for part in path.split("."):
        below[part] = dict(below.get(part) or {})
        below = below[part]
    below[key] = value
    return settings


def places(path):
    """Where the keys of a section stand: in it, and below a name of what overrides it."""
    return [path, f"{NAMED[path]}.mine"] if path in NAMED else [path]


KEYS = [
    (place, path, old, new)
    for path, keys in renamed.KEYS.items()
    for old, new in keys.items()
    for place in places(path)
]
VALUES = [
    (place, path.rpartition(".")[2], old, new)
    for path, values in renamed.VALUES.items()
    if path not in renamed.NAMED
    for old, new in values.items()
    for place in places(path.rpartition(".")[0])
]


def refused(settings):
    with pytest.raises(ValueError, match=r"^settings:\n") as error:
        config.load(settings)
    return str(error.value).splitlines()[1:]


@pytest.mark.parametrize(("place", "path", "old", "new"), KEYS)
def test_an_old_key_names_the_new_one_which_is_a_key_of_today(place, path, old, new):
    assert refused(set_at(place, old, None)) == [f"  {place}.{old}: this key is now {new}; rename it"]
    section = SHIPPED
    for part in path.split("."):
        section = section[part]
    assert section is None or (new in section and old not in section)


@pytest.mark.parametrize(("place", "key", "old", "new"), VALUES)
def test_an_old_value_names_the_new_one(place, key, old, new):
    assert refused(set_at(place, key, old)) == [f"  {place}.{key}: {old!r} is now {new!r}; write that"]


def test_all_old_names_are_said_at_once():
    settings = set_at("pretrain", "slides", "train_only")
    settings["gallery"] = {"slides": 3}
    assert refused(settings) == [
        "  pretrain.slides: this key is now train_on; rename it",
        "  pretrain.slides: 'train_only' is now 'train_fold'; write that",
        "  gallery.slides: this key is now n_slides; rename it",
    ]


@pytest.mark.parametrize(("old", "new"), renamed.RESULT_ROWS.items())
@pytest.mark.parametrize("with_labels", [False, True])
def test_a_row_of_a_table_by_its_old_name_names_the_new_one(old, new, with_labels):
    rows = {"ours": "slpd/mil", "theirs": old} if with_labels else ["slpd/mil", old]
    shown = "report.tables.mine.rows" + ".theirs" * with_labels
    settings = set_at("report.tables", "mine", {"cohorts": ["a"], "rows": rows})
    assert refused(settings) == [f"  {shown}: {old!r} is now {new!r}; write that"]
