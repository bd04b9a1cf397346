"""Which folds one job evaluates, and that they come out as those of a job each."""

import re
from pathlib import Path
from types import SimpleNamespace as Resource

import pytest

from slpd_core.workflow.joined_folds import row_pattern, select_joined_rows

SLPD, PATCHES = ("label", "slpd", "vit_wsi"), ("label", "patch_tokens", "knn")


@pytest.fixture
def two_rows(rows, tmp_path, monkeypatch):
    """Two rows of one encoder each and two folds, without a file; and a row of an encoder per fold."""
    monkeypatch.chdir(tmp_path)
    return rows(
        pretrain={"runs": {"slpd": {}, "each": {"train_on": "train_fold"}}},
        evaluate={"classifiers": {"patch_tokens": ["knn"], "slpd": ["vit_wsi"], "each": ["mil"]}},
    )


def cores(count):
    return {"_cores": Resource(value=count)}


def per_job(folds):
    return {"evaluate": {"folds_per_job": Resource(value=folds)}}


def test_the_folds_of_one_encoder_are_joined_until_one_of_them_has_a_file(two_rows):
    assert select_joined_rows(two_rows, {}, {}) == [PATCHES, SLPD]
    for path in map(Path, two_rows.files(*SLPD)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert select_joined_rows(two_rows, {}, {}) == [PATCHES]
        path.unlink()
    assert select_joined_rows(two_rows, {}, {}) == [PATCHES, SLPD]


@pytest.mark.parametrize(("count", "joined"), [(1, [PATCHES, SLPD]), (2, [PATCHES, SLPD]), (3, []), (64, [])])
def test_no_core_idles_unless_the_user_says_so(two_rows, count, joined):
    assert select_joined_rows(two_rows, {}, cores(count)) == joined
    assert select_joined_rows(two_rows, per_job(2), cores(count)) == [PATCHES, SLPD]
    assert select_joined_rows(two_rows, per_job(1), cores(count)) == []


def test_a_job_does_the_folds_that_it_was_planned_for(two_rows):
    """Its own process parses the rules anew, when files of the row may be there."""
    path = Path(two_rows.files(*SLPD)[0])
    path.parent.mkdir(parents=True)
    path.touch()
    assert select_joined_rows(two_rows, {}, cores(64), planning=False) == [PATCHES, SLPD]


def test_some_folds_in_a_job_are_refused(two_rows):
    with pytest.raises(ValueError, match=r"folds_per_job=3: 1 evaluates each fold in a job of its own, 2 all folds"):
        select_joined_rows(two_rows, per_job(3), {})


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("label/slpd/vit_wsi/fold0", True),
        ("label/slpd/vit_wsi2/fold0", False),
        ("label/slpd/knn/fold0", False),
        ("grade/slpd/vit_wsi/fold0", False),
        ("labels/slpd/vit_wsi/fold0", False),
    ],
)
def test_a_pattern_is_of_its_rows_alone(path, matches):
    pattern = rf"(?P<task>{row_pattern([SLPD])})/(?P<features>[^/]+)/(?P<classifier>[^/]+)/fold0"
    assert bool(re.fullmatch(pattern, path)) == matches
    assert not re.fullmatch(rf"({row_pattern([])})/slpd/vit_wsi/fold0", "label/slpd/vit_wsi/fold0")
