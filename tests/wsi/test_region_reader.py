"""Regions come in their order and are read ahead, across slides, by any number of threads; a bad slide is alone."""

import threading
from collections import Counter

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.wsi import identity
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.region_reader import RegionReader, iter_region_pixels, read_regions_ahead
from slpd_core.wsi.writer import write_slide

SIDE = 64


@pytest.fixture
def make_reader(tmp_path):
    """Make the reader of a slide of noise with regions one after another."""

    def make_reader(name, count):
        path = tmp_path / f"{name}.tiff"
        width = SIDE * max(1, count)
        write_slide(path, np.random.default_rng(len(name)).integers(0, 256, (SIDE, width, 3), dtype=np.uint8), 0.5)
        fingerprint = identity.slide_fingerprint(path)
        info = artifacts.SlideInfo(name, artifacts.OK, "", width, SIDE, 0.5, "sheet", fingerprint)
        coords = np.array([(SIDE * i, 0) for i in range(count)], np.int64)
        regions = artifacts.Regions(info, coords, np.ones(count, np.float32), SIDE, SIDE, 0.5)
        return RegionReader(path, regions)

    return make_reader


@pytest.fixture
def reading(monkeypatch):
    """Do something before each reading of a slide."""
    read = Slide.read

    def reading(before):
        def read_after(self, xy, *rest):
            before(self.path.stem, xy[0] // SIDE)
            return read(self, xy, *rest)

        monkeypatch.setattr(Slide, "read", read_after)

    return reading


def same(_, pixels):
    return pixels


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_slides_and_regions(make_reader, threads):
    readers = [make_reader(name, count) for name, count in (("a", 3), ("bb", 1), ("none", 0), ("ccc", 4))]
    expected = [(reader, i, reader.read(i)) for reader in readers for i in range(len(reader.regions.coords))]
    results = list(read_regions_ahead(readers, same, threads=threads))
    assert [pair[:2] for pair in results] == [pair[:2] for pair in expected]
    for (_, _, result), (_, _, pixels) in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.result(), pixels)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3), (4, 5)])
def test_one_thread_is_one_region_ahead_and_n_threads_are_one_more_than_n(make_reader, reading, threads, ahead):
    """Across slides, and never more."""
    read, begun = [], threading.Semaphore(0)

    def note(*region):
        read.append(region)
        begun.release()

    reading(note)
    readers = [make_reader("a", 2), make_reader("bb", 12)]
    begun_before = 0
    for taken, _ in enumerate(read_regions_ahead(readers, same, threads=threads), start=1):
        while begun_before < min(14, taken + ahead):
            assert begun.acquire(timeout=60)
            begun_before += 1
        assert len(read) == begun_before
    assert Counter(read) == Counter([("a", i) for i in range(2)] + [("bb", i) for i in range(12)])


def test_pixels_are_processed_in_the_thread_that_read_them(make_reader, reading):
    readers, processors = [], []
    reading(lambda *_: readers.append(threading.get_ident()))
    list(read_regions_ahead([make_reader("a", 3)], lambda *_: processors.append(threading.get_ident()), threads=1))
    assert readers == processors != [threading.get_ident()] * 3


@pytest.mark.parametrize("threads", [1, 3])
def test_an_outage_is_read_over_and_the_file_checked_once(make_reader, reading, monkeypatch, threads):
    reader = make_reader("a", 6)
    whole = [reader.read(i) for i in range(6)]
    failures, lock, checks = [2], threading.Lock(), []
    fingerprint = identity.slide_fingerprint

    def fail(name, i):
        with lock:
            fails = i in failures
            if fails:
                failures.clear()
        if fails:
            raise SlideError(f"{name}: broken data")

    reading(fail)
    monkeypatch.setattr(identity, "slide_fingerprint", lambda *args: checks.append(args[1]) or fingerprint(*args))
    again = list(iter_region_pixels(reader.slide_path, reader.regions))
    np.testing.assert_array_equal(again, whole)
    assert checks == [None, None]
    failures += [1]
    results = read_regions_ahead([RegionReader(reader.slide_path, reader.regions)], same, threads=threads)
    np.testing.assert_array_equal([result.result() for _, _, result in results], whole)
    assert checks == [None] * 4


@pytest.mark.parametrize("threads", [1, 3])
def test_a_broken_slide_fails_alone_by_its_first_broken_region(make_reader, reading, threads):
    readers = [make_reader("a", 2), make_reader("broken", 8), make_reader("ccc", 2)]
    tried = Counter()

    def fail(name, i):
        tried[name] += 1
        if name == "broken" and i >= 2:
            raise SlideError(f"region {i} is broken")

    reading(fail)
    errors = {}
    for reader, i, result in read_regions_ahead(readers, same, threads=threads):
        name = reader.regions.slide.slide_id
        if result.exception() and name not in errors:
            errors[name] = str(result.exception())
            assert i == 2
    assert errors == {"broken": "region 2 is broken"}
    assert tried["broken"] <= 2 + 2 * threads  # not each of the eight regions, twice


def test_slides_are_closed_after_their_last_region_and_when_reading_stops(make_reader, monkeypatch):
    closed, close = [], Slide.close
    monkeypatch.setattr(Slide, "close", lambda self: closed.append(self.path.stem) or close(self))
    results = read_regions_ahead([make_reader("a", 2), make_reader("bb", 9), make_reader("ccc", 9)], same, threads=2)
    for _ in range(3):
        next(results)
    assert closed == ["a"]
    results.close()
    assert sorted(closed) == ["a", "bb"]
