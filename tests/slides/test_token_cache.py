"""A cache of tokens gives what was asked for or nothing, and several users may share one."""

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.slides import token_cache

META = artifacts.provenance("tokens", 1, {}, "f")
NOBODY = 65534


def regions_at(*corners):
    coords = np.array(corners, np.int64).reshape(-1, 2)
    info = artifacts.SlideInfo("s", artifacts.OK, "", 640, 560, 0.5, "sheet", "f")
    return artifacts.Regions(info, coords, np.ones(len(coords), np.float32), 256, 256, 0.5)


def write(path: Path, regions: artifacts.Regions, fingerprint: str) -> Path:
    """Tokens that say their number."""
    with artifacts.create_tokens(path, regions, 2, 3, META | {"fingerprint": fingerprint}) as written:
        for number in range(len(regions.coords)):
            written.tokens[number] = np.full((4, 3), number, np.float16)
            written.mean_color[number] = np.zeros((4, 3), np.float16)
    return path


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO)
    return caplog


@contextmanager
def another_user():
    """Act as another user, whom permissions hold; where this one may not become one, only as this one."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder():
    """A folder that every user may write into."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("wrong", ["fingerprint", "corners", "torn"])
def test_what_is_not_what_was_asked_for_is_not_taken(tmp_path, said, wrong):
    asked = regions_at((0, 0), (256, 0))
    corners = regions_at((0, 0), (256, 64)) if wrong == "corners" else asked
    cached = write(tmp_path / "cache" / "a.h5", corners, "b" if wrong == "fingerprint" else "a")
    if wrong == "torn":
        os.truncate(cached, cached.stat().st_size // 2)
    assert not token_cache.get(tmp_path / "cache", "a", asked, tmp_path / "t.h5")
    assert "broken, removed from tokens.cache_dir" in said.text
    assert not cached.exists()
    write(cached, asked, "a")
    assert token_cache.get(tmp_path / "cache", "a", asked, tmp_path / "t.h5")
    assert artifacts.read_tokens(tmp_path / "t.h5")[0].tokens[:, 0, 0].tolist() == [0, 1]


def test_a_file_that_another_user_keeps_to_himself_is_left_alone(folder, said):
    asked = regions_at((0, 0))
    cached = write(folder / "cache" / "a.h5", asked, "a")
    cached.parent.chmod(0o777)
    cached.chmod(0)
    with another_user():
        assert not token_cache.get(cached.parent, "a", asked, folder / "t.h5")
        token_cache.store(cached.parent, "a", write(folder / "mine.h5", asked, "a"))
    assert cached.exists()
    assert "tokens.cache_dir cannot be read ([Errno 13] Permission denied" in said.text
    assert "broken" not in said.text


def test_what_one_user_adds_another_may_read_where_the_folder_says_so(folder):
    asked, before = regions_at((0, 0)), os.umask(0o077)
    try:
        for mode in (0o755, 0o700):
            cache_dir = folder / f"{mode:o}"
            cache_dir.mkdir()
            cache_dir.chmod(mode)
            token_cache.store(cache_dir, "a", write(folder / f"{mode}.h5", asked, "a"))
            assert (cache_dir / "a.h5").stat().st_mode & 0o777 == (0o644 if mode == 0o755 else 0o600)
    finally:
        os.umask(before)
    with another_user():
        assert token_cache.get(folder / "755", "a", asked, folder / "theirs.h5")


def test_a_cache_that_may_not_be_entered_ends_no_job(folder, said):
    asked = regions_at((0, 0))
    (folder / "cache").mkdir(mode=0)
    with another_user():
        assert not token_cache.get(folder / "cache", "a", asked, folder / "t.h5")
        token_cache.store(folder / "cache", "a", write(folder / "mine.h5", asked, "a"))
    assert "not added to tokens.cache_dir ([Errno 13] Permission denied" in said.text


def test_a_cache_may_lie_among_results(tmp_path):
    asked = regions_at((0, 0))
    cache_dir, results = tmp_path / "results" / "shared" / "tokens", tmp_path / "results" / "cohort" / "tokens"
    token_cache.store(cache_dir, "a", write(results / "s.h5", asked, "a"))
    assert token_cache.get(cache_dir, "a", asked, results / "other.h5")
    assert len(artifacts.read_tokens(results / "other.h5")[0].tokens) == 1


def test_a_flipped_bit_in_the_cache_is_encoded_anew(tmp_path, said):
    asked = regions_at((0, 0), (256, 0))
    cached = write(tmp_path / "cache" / "a.h5", asked, "a")
    content = bytearray(cached.read_bytes())
    at = content.index(np.full(12, 1, np.float16).tobytes())  # the tokens of region 1
    content[at] ^= 4
    cached.write_bytes(content)
    assert not token_cache.get(tmp_path / "cache", "a", asked, tmp_path / "t.h5")
    assert "broken, removed from tokens.cache_dir" in said.text
    assert [*tmp_path.iterdir()] == [cached.parent]
