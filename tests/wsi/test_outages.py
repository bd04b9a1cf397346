"""What failed by reading is tried again, at once and by the next runs; what failed by content is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.slides import tissue
from slpd_core.wsi import identity, outages
from slpd_core.wsi.errors import COPY_AGAIN, SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.region_reader import iter_region_pixels

BOTH = (SlideError, OSError)


@pytest.fixture
def slide(planted):
    return planted((768, 512), {(100, 100, 400, 300): (200, 120, 170)})


@pytest.fixture
def regions(slide):
    """Six regions of the slide."""
    info = artifacts.SlideInfo("s", artifacts.OK, "", 768, 512, 0.5, "sheet", identity.slide_fingerprint(slide))
    coords = np.array([(x, y) for y in (0, 256) for x in (0, 256, 512)], np.int64)
    return artifacts.Regions(info, coords, np.ones(6, np.float32), 256, 256, 0.5)


@pytest.fixture
def failing(monkeypatch):
    """Let reading fail as OpenSlide does, the nth times of `at`; gives how often anything was read."""
    calls, read = [], Slide.read

    def fail(at):
        def reading(self, xy, *rest):
            calls.append(xy)
            if len(calls) in at:
                raise SlideError(f"{self.path}: broken data")
            return read(self, xy, *rest)

        monkeypatch.setattr(Slide, "read", reading)
        return calls

    return fail


def test_an_outage_while_regions_are_read_loses_none_of_them(slide, regions, failing):
    whole = list(iter_region_pixels(slide, regions))
    failing(at={4})
    again = list(iter_region_pixels(slide, regions))
    assert len(again) == 6
    np.testing.assert_array_equal(again, whole)


def test_what_is_broken_twice_is_the_slides_fault(slide, regions, failing):
    calls = failing(at=range(3, 99))
    read = []
    with pytest.raises(SlideError, match="broken data"):
        read += iter_region_pixels(slide, regions)
    assert calls.count((512, 0)) == 2


@pytest.mark.parametrize("raise_slide_error", [False, True])
def test_a_slide_that_seems_broken_and_cannot_be_read_is_not_broken(
    slide, regions, failing, monkeypatch, raise_slide_error
):
    failing(at=range(3, 99))
    pixels = iter_region_pixels(slide, regions, raise_slide_error=raise_slide_error)
    next(pixels)

    def away(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(artifacts, "file_fingerprint", away)
    with pytest.raises(outages.UnreadableSlideError if raise_slide_error else OSError, match="Input/output error"):
        list(pixels)


def test_a_memo_of_the_tissue_stage_spares_the_reading_of_the_whole(slide, regions, tmp_path, monkeypatch):
    identity.slide_fingerprint(slide, tmp_path / "s.json")
    monkeypatch.setattr(artifacts, "file_fingerprint", lambda _: pytest.fail("read whole"))
    assert len(list(iter_region_pixels(slide, regions, state_dir=tmp_path))) == 6


def test_a_slide_that_seems_broken_is_read_whole_whatever_its_memo_says(slide, regions, failing, tmp_path):
    """The memo is of the bytes as they were; what is read now differs from them."""
    memo = {"fingerprint": "0" * 32, "stamp": identity.file_stamps(slide)}
    artifacts.write_json(tmp_path / "s.json", memo)
    regions = replace(regions, slide=replace(regions.slide, fingerprint="0" * 32))
    assert len(list(iter_region_pixels(slide, regions, state_dir=tmp_path))) == 6
    failing(at={4})
    with pytest.raises(ValueError, match="replaced since"):
        list(iter_region_pixels(slide, regions, state_dir=tmp_path))


@pytest.fixture
def segment(slide, tmp_path, settings):
    """Run the tissue stage; gives what it says of the slide."""

    def run(path=slide, quarantine=BOTH):
        paths = {"geojson_path": tmp_path / "s.geojson", "overlay_path": tmp_path / "s.png"}
        section, state = settings.tissue.segmentation, tmp_path / "state"
        arguments = {"slide_id": "s", "slide_path": path, "mpp": None, "section": section, "state_dir": state}
        tissue.run(**arguments, **paths, quarantine=quarantine)
        return artifacts.read_tissue(paths["geojson_path"])[0].slide

    return run


def test_an_outage_while_tissue_is_sought_is_no_fault_of_the_slide(segment, failing):
    failing(at={1})
    assert segment().status == artifacts.OK


def test_a_slide_that_cannot_be_read_is_tried_again_by_some_runs(segment, tmp_path):
    """Each run that failed counts anew, and none that did not: another count is another parameter of its jobs."""
    gone, state, counts = tmp_path / "gone.svs", tmp_path / "state", []
    for _ in range(outages.MAX_FAILED_RUNS):
        found = segment(gone)
        assert found.status == artifacts.QUARANTINED
        assert found.reason.startswith(f"{gone}: cannot be read (")
        assert found.reason.endswith("; the next run tries it again")
        counts.append(outages.count_failures(state)["s"])
    assert counts == [1, 2, 3]
    assert segment(gone).reason.endswith(f"in 4 runs; {COPY_AGAIN}")
    assert outages.count_failures(state) == {"s": 3}
    assert segment().status == artifacts.OK
    assert outages.count_failures(state) == {"s": 3}  # as it was when its jobs ran last
    assert segment(gone).reason.endswith("; the next run tries it again")  # a later outage is another one
    assert outages.count_failures(state) == {"s": 4}


def test_an_outage_that_all_jobs_of_a_run_meet_is_of_one_run(tmp_path):
    """Whichever of them met it, the next run has another count; and the last one tries what the first did."""
    error, gone, counts = outages.UnreadableSlideError("away"), tmp_path / "gone.svs", [0]
    for jobs in ("abcd", "bcd", "d", "abcd"):
        marks = [outages.name_mark(tmp_path, "s", Path(job)) for job in jobs]
        said = [outages.explain(error, mark, gone) for mark in marks]
        assert said[:3] == ["away; the next run tries it again"] * min(3, len(jobs))
        counts.append(outages.count_failures(tmp_path)["s"])
    assert said[3].startswith("away in 4 runs")
    assert counts == sorted({*counts})


def test_another_file_is_tried_as_often_as_the_first(tmp_path):
    error, path = outages.UnreadableSlideError("away"), tmp_path / "s.svs"
    mark = outages.name_mark(tmp_path, "s", Path("out"))
    for content in (b"first", b"the second"):
        path.write_bytes(content)
        said = [outages.explain(error, mark, path) for _ in range(4)]
        assert [text.endswith("tries it again") for text in said] == [True, True, True, False]
    assert outages.count_failures(tmp_path) == {"s": 6}


def test_before_the_last_attempt_nothing_is_noted(segment, tmp_path):
    with pytest.raises(FileNotFoundError):
        segment(tmp_path / "gone.svs", quarantine=(SlideError,))
    assert outages.count_failures(tmp_path / "state") == {}


def test_a_torn_slide_is_not_tried_again(segment, slide, tmp_path):
    slide.write_bytes(slide.read_bytes()[:3000])
    found = segment()
    assert found.status == artifacts.QUARANTINED
    assert "tries it again" not in found.reason
    assert outages.count_failures(tmp_path / "state") == {}


def test_an_id_with_dots_keeps_its_count(tmp_path):
    error = outages.UnreadableSlideError("a")
    outages.explain(error, outages.name_mark(tmp_path, "TCGA.01.unread", Path("out")), tmp_path)
    assert outages.count_failures(tmp_path) == {"TCGA.01.unread": 1}
    assert outages.count_failures(tmp_path / "none") == {}


def test_a_mark_with_a_flipped_bit_counts_for_nothing(tmp_path):
    mark = outages.name_mark(tmp_path, "s", Path("out"))
    outages.explain(outages.UnreadableSlideError("away"), mark, tmp_path)
    assert outages.count_failures(tmp_path) == {"s": 1}
    whole = mark.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        mark.write_bytes(damaged)
        assert outages.count_failures(tmp_path) == {"s": 0}, bit
