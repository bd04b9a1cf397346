"""Kept tokens are those of the same inputs, or none."""

import os
from dataclasses import replace

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.slides import kept_tokens

META = artifacts.provenance("tokens", 1, {}, "f") | {"fingerprint": "abc"}
INFO = artifacts.SlideInfo("s", artifacts.OK, "", 640, 560, 0.5, "sheet", "f")
REGIONS = artifacts.Regions(INFO, np.array([[0, 0], [256, 0]], np.int64), np.ones(2, np.float32), 256, 256, 0.5)


@pytest.fixture
def paths(tmp_path):
    """The folder of kept tokens, and tokens of two regions that are kept there."""
    path = tmp_path / "tokens" / "s.h5"
    with artifacts.create_tokens(path, REGIONS, 2, 3, META) as written:
        written.tokens[:], written.mean_color[:] = np.ones((2, 4, 3), np.float16), np.ones((2, 4, 3), np.float16)
    kept_tokens.keep(tmp_path / "kept", path)
    return tmp_path / "kept", path


def test_tokens_that_snakemake_deletes_come_back(paths):
    kept, path = paths
    content = path.read_bytes()
    path.unlink()
    assert kept_tokens.restore(kept, "abc", REGIONS, path)
    assert path.read_bytes() == content
    assert path.stat().st_nlink == 2  # no space of its own
    kept_tokens.keep(kept, path)
    assert [*kept.iterdir()] == [kept / "s.h5"]


@pytest.mark.parametrize(
    ("fingerprint", "regions"),
    [
        ("abd", REGIONS),
        ("abc", replace(REGIONS, coords=REGIONS.coords + 1)),
        ("abc", replace(REGIONS, slide=replace(INFO, fingerprint="g"))),
        ("abc", replace(REGIONS, slide=replace(INFO, slide_id="other"))),
    ],
)
def test_tokens_of_other_inputs_do_not(paths, fingerprint, regions):
    kept, path = paths
    path.unlink()
    assert not kept_tokens.restore(kept, fingerprint, regions, path)
    assert not path.exists()


def test_damaged_ones_do_not(paths):
    kept, path = paths
    path.write_bytes(path.read_bytes()[:-400])  # of both names
    assert not kept_tokens.restore(kept, "abc", REGIONS, path)


def test_without_links_nothing_is_kept(paths, monkeypatch):
    kept, path = paths
    (kept / "s.h5").unlink()

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    kept_tokens.keep(kept, path)
    assert [*kept.iterdir()] == []
    assert path.exists()
    assert not kept_tokens.restore(kept, "abc", REGIONS, path)
