"""Progress of a job's loops: its file, read while the loops run."""

import json

import pytest

from slpd_core import runtime
from slpd_core.runtime import job_progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds of a clock that the test moves; every item's state is written."""
    now = [100.0]
    monkeypatch.setattr(job_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(job_progress, "SECONDS_BETWEEN_WRITES", 0)
    return now


def test_a_job_tells_how_far_its_loops_are_and_what_is_left(tmp_path, clock):
    log, seen = tmp_path / "pretrain" / "slpd.log", []
    with runtime.job(str(log), "pretrain slpd"):
        for _ in runtime.progress(range(1, 3), 3, "training", "epochs", done=1):  # resumed after one epoch of three
            for _ in runtime.progress(range(4), 4, "epoch", "steps"):
                clock[0] += 10
                runtime.note_progress("loss 5.28")
                seen.append(runtime.read_progress(log))
        clock[0] += 10
    assert runtime.read_progress(log) is None, "nothing is left of it"
    assert [(state.done, state.total, state.unit) for state in seen] == [(1, 3, "epochs")] * 4 + [(2, 3, "epochs")] * 4
    fractions = [state.fraction for state in seen]
    assert fractions == pytest.approx([(4 + i) / 12 for i in range(8)])
    for i, state in enumerate(seen):  # as written after i steps of 10 s each, of the 8 that were left
        assert state.left_s == (pytest.approx(80 - 10 * i) if i else None)
        assert state.elapsed_s == pytest.approx(10 * i)
    assert seen[0].note == ""
    assert {state.note for state in seen[1:]} == {"loss 5.28"}
    assert {state.nested for state in seen} == {True}


def test_a_loop_of_one_item_tells_of_the_loop_within(tmp_path, clock):
    log = tmp_path / "a.log"
    with runtime.job(str(log), "tokens a"):
        for _ in runtime.progress([0], 1, "tokens", "slides"):
            for i in runtime.progress(range(3), 3, "a", "regions"):
                state = runtime.read_progress(log)
                assert (state.label, state.done, state.nested, state.fraction) == ("a", i, False, pytest.approx(i / 3))


def test_a_loop_that_ends_early_is_over(tmp_path, clock):
    log = tmp_path / "a.log"
    with runtime.job(str(log), "a"):
        for _ in runtime.progress(range(9), 9, "first", "slides"):
            break
        for _ in runtime.progress(range(2), 2, "second", "slides"):
            assert runtime.read_progress(log).label == "second"


def test_progress_is_written_seldom_and_whole(tmp_path, monkeypatch):
    log, now, written = tmp_path / "a.log", [0.0], []
    monkeypatch.setattr(job_progress.time, "monotonic", lambda: now[0])
    replace = job_progress.Path.replace
    monkeypatch.setattr(
        job_progress.Path, "replace", lambda a, b: (written.append(json.loads(a.read_text())), replace(a, b))
    )
    with runtime.job(str(log), "a"):
        now[0] = 100.0
        for _ in runtime.progress(range(80), 80, "a", "slides"):
            now[0] += 0.125
    assert len(written) == 2 + 10 // job_progress.SECONDS_BETWEEN_WRITES
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"label": 1}'])
def test_a_broken_file_tells_nothing(tmp_path, text):
    runtime.progress_path(tmp_path / "a.log").write_text(text)
    assert runtime.read_progress(tmp_path / "a.log") is None


def test_a_job_that_cannot_write_its_progress_works_on(tmp_path, clock):
    log = tmp_path / "a.log"
    with runtime.job(str(log), "a"):
        runtime.progress_path(log).unlink()
        runtime.progress_path(log).mkdir()  # in the place of the file
        assert list(runtime.progress(range(3), 3, "a", "slides")) == [0, 1, 2]
        runtime.progress_path(log).rmdir()
