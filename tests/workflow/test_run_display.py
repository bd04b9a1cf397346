"""What a run shows: its lines, from the messages of Snakemake and the files of its jobs."""

import io
import json
import logging
import math
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core import runtime
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.runtime import JobProgress
from slpd_core.workflow import run_display
from slpd_core.workflow.run_display import RunDisplay
from slpd_core.workflow.run_lines import format_duration, format_job, format_run
from slpd_core.workflow.time_left import plan_job


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (70, "1 min 10 s"), (3599, "59 min 59 s"), (3600, "1 h")),
        *((7500, "2 h 5 min"), (86399, "23 h 59 min"), (86400, "1 d"), (273_600, "3 d 4 h")),
    ],
)
def test_a_time_has_its_two_largest_units(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(0, 400_000))
def test_a_time_is_told_within_its_smaller_unit(seconds):
    size = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    words = format_duration(seconds).split()
    told = sum(int(count) * size[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert 0 <= seconds - told < max(1, seconds / 24)


def test_the_line_of_a_job():
    epochs = JobProgress("training", "epochs", 11, 30, nested=True, note="loss 5.28", elapsed_s=110, left_s=70)
    assert (
        format_job("pretrain slpd", epochs, 999)
        == "[pretrain slpd] epoch 12 of 30, loss 5.28, 1 min 10 s of 3 min left"
    )
    regions = JobProgress("a", "regions", 120, 2264)
    assert format_job("tokens a", regions, 4) == "[tokens a] 120 of 2,264 regions, 4 s"
    assert format_job("report", None, 12) == "[report] 12 s"
    assert format_job("report", JobProgress("", "", 0, 0), 12) == "[report] 12 s"
    assert format_job("tokens a", JobProgress("tokens", "slides", 0, 1), 12) == "[tokens a] 12 s"
    assert "\x1b" not in format_job("a", JobProgress("", "slides", 0, 2, note="\x1b[2J"), 1)


def test_the_line_of_a_run():
    assert format_run(23, 61, left_s=700) == "23 of 61 jobs, about 12 min left"
    assert format_run(23, 1061, left_s=700, known=False) == "23 of 1,061 jobs, roughly 12 min left"
    assert (
        format_run(23, 61, left_s=59, failed=1, queued=3)
        == "23 of 61 jobs, 1 failed, 3 queued, less than a minute left"
    )
    assert format_run(0, 61, left_s=math.nan, known=False) == "0 of 61 jobs, time left not known yet"


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """The seconds of a clock that the test moves."""
    seconds = [1000.0]
    monkeypatch.setattr(run_display.time, "monotonic", lambda: seconds[0])
    return seconds


def make_display(stream, queues=False, forecast=None):
    jobs = [
        *(plan_job("tissue", {"slide": name}, [f"{name}.geojson", f"{name}.png"], assumed_s=180) for name in "ab"),
        plan_job("pretrain", {"region_encoder": "slpd"}, ["e"], assumed_s=3600),
    ]
    return RunDisplay(dict(enumerate(jobs)), forecast or {}, stream, queues=queues)


def say(display, event=None, msg="", **fields):
    """A message of Snakemake, as its loggers hand it on."""
    record = logging.makeLogRecord({"msg": msg, "event": event} | fields)
    display.handle(record)
    return display.filter_replaced(record)


def tell(log, **state):
    """Write how far a job is."""
    log.parent.mkdir(parents=True, exist_ok=True)
    runtime.progress_path(log).write_text(json.dumps(asdict(JobProgress(**state))))


def test_a_run_from_its_first_line_to_its_last(tmp_path, now):
    display, log = make_display(io.StringIO(), forecast={"tissue": 30, "pretrain slpd": 300}), tmp_path / "slpd.log"
    assert display.lines() == ["0 of 3 jobs, about 6 min left"]
    assert not say(display, "job_info", jobid=0, log=[str(tmp_path / "a.log")])
    now[0] += 20
    assert display.lines() == ["[tissue a] 20 s", "0 of 3 jobs, about 6 min left"]
    assert not say(display, "job_finished", job_id=0)
    assert not say(display, "progress", done=1, total=4)
    tell(log, label="", unit="epochs", done=3, total=9)  # of an attempt that was killed
    say(display, "job_info", jobid=2, log=[str(log)])
    assert display.lines() == ["[pretrain slpd] 0 s", "1 of 3 jobs, about 5 min left"]
    tell(log, label="training", unit="epochs", done=2, total=3, nested=True, elapsed_s=400, left_s=200)
    now[0] += 400
    assert display.lines() == [
        "[pretrain slpd] epoch 3 of 3, 3 min 20 s of 10 min left",
        "1 of 3 jobs, about 4 min left",
    ]
    assert say(display, "job_error", jobid=2, log=[str(log)]), "errors are shown"
    assert say(display, None, msg="Trying to restart job 2.")
    say(display, "job_info", jobid=2, log=[str(log)])
    say(display, "job_finished", job_id=2)
    say(display, "job_info", jobid=1, log=["absent.log"])
    say(display, "job_error", jobid=1, log=["absent.log"])
    now[0] += 10
    assert display.lines() == ["2 of 3 jobs, 1 failed, less than a minute left"]
    assert display.end() == [
        "[tissue b] failed: absent.log",
        "2 of 3 jobs done in 7 min 10 s: once the cause is mended, the same command goes on from here.",
    ]


def test_a_stop_says_that_the_same_command_goes_on_and_no_job_that_it_ended_is_an_error(now):
    display = make_display(io.StringIO())
    say(display, "job_info", jobid=2, log=["slpd.log"])
    assert say(display, msg="Terminating processes on user request, this might take some time.")
    assert not say(display, "error", msg="Traceback")
    assert not say(display, "job_error", jobid=2, log=["slpd.log"])
    assert display.end() == ["Stopped after 0 s, 0 of 3 jobs done: the same command goes on from here."]


def test_jobs_in_the_queue_of_a_cluster_have_no_line_until_they_begin(tmp_path, now):
    display, log = make_display(io.StringIO(), queues=True), tmp_path / "slpd.log"
    say(display, "job_info", jobid=2, log=[str(log)])
    now[0] += 500
    assert display.lines() == ["0 of 3 jobs, 1 queued, time left not known yet"]
    with runtime.job(str(log), "pretrain slpd"):
        assert display.lines()[0] == "[pretrain slpd] 0 s"
        now[0] += 30
        assert display.lines()[0] == "[pretrain slpd] 30 s"


def test_lines_that_stay_come_once_a_minute_of_jobs_that_run_as_long(now):
    display = make_display(io.StringIO())
    say(display, "job_info", jobid=2, log=["absent.log"])
    now[0] += 40
    say(display, "job_info", jobid=0, log=["absent.log"])
    now[0] += 20
    assert [line.split("]")[0] for line in display.lines(since_s=60)[:-1]] == ["[pretrain slpd"]
    now[0] += 30
    assert len(display.lines(since_s=60)) == 1
    now[0] += 30
    assert [line.split("]")[0] for line in display.lines(since_s=60)[:-1]] == ["[pretrain slpd", "[tissue a"]


def screen_of(text: str, lines: int = 30) -> list[str]:
    """What a terminal shows of a text: new lines, returns, CSI A (up) and CSI J (clear from the cursor on)."""
    shown, row, column = [""], 0, 0
    i = 0
    while i < len(text):
        if text[i] == "\x1b":
            end = next(j for j in range(i, len(text)) if text[j] in "AJ")
            if text[end] == "A":
                row = max(0, row - int(text[i + 2 : end]))
            else:
                shown = [*shown[:row], shown[row][:column]]
            i = end
        elif text[i] == "\n":
            row, column = row + 1, 0
            shown += [""] * (row + 1 - len(shown))
        elif text[i] == "\r":
            column = 0
        else:
            shown[row] = shown[row][:column].ljust(column) + text[i] + shown[row][column + 1 :]
            column += 1
        i += 1
    return shown


def test_a_terminal_shows_the_lines_below_all_that_others_write(now):
    display = make_display(terminal := Terminal())
    say(display, "job_info", jobid=2, log=["absent.log"])
    terminal.write("before\n")
    display._draw(display.lines())
    assert screen_of(terminal.getvalue()) == [
        "before",
        "",
        "[pretrain slpd] 0 s",
        "0 of 3 jobs, time left not known yet",
    ]
    terminal.write("[pretrain slpd] a job's own warning\n")
    now[0] += 1
    display._draw(display.lines())
    warned = ["before", "[pretrain slpd] a job's own warning"]
    expected = [*warned, "", "[pretrain slpd] 1 s", "0 of 3 jobs, time left not known yet"]
    assert screen_of(terminal.getvalue()) == expected
    say(display, msg="two lines\nof Snakemake")
    terminal.write("two lines\nof Snakemake\n")
    display._draw(display.lines())
    assert screen_of(terminal.getvalue())[:4] == [*warned, "two lines", "of Snakemake"]
    display.close()
    assert screen_of(terminal.getvalue()) == [*warned, "two lines", "of Snakemake", ""]


def test_lines_fit_the_terminal(monkeypatch, now):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "5")
    display = make_display(terminal := Terminal())
    for number in range(3):
        say(display, "job_info", jobid=number, log=["absent.log"])
    display._draw(display.lines())
    shown = screen_of(terminal.getvalue())
    assert shown[1:] == ["[tissue a] 0 s", "... and 2 more jobs; 0 of 3 jobs, time left not known yet"[:39]]


def test_lines_are_printed_while_the_run_goes_and_not_after(monkeypatch, tmp_path):
    for name, seconds in (("LIVE_SECONDS", 0.01), ("LINE_SECONDS", 0.02), ("CLUSTER_SECONDS", 0.02)):
        monkeypatch.setattr(run_display, name, seconds)
    display = make_display(stream := io.StringIO())
    display.start()
    assert stream.getvalue().endswith(" 0 of 3 jobs, time left not known yet\n")
    say(display, "job_info", jobid=2, log=[str(tmp_path / "slpd.log")])
    last = time.monotonic() + 20
    while "[pretrain slpd] 0 s\n" not in stream.getvalue():
        assert time.monotonic() < last
        time.sleep(0.01)
    display.end()
    printed = stream.getvalue()
    display._thread.join()
    assert stream.getvalue() == printed
    assert "\x1b" not in printed


def make_workflow(handler, **settings):
    """Snakemake's workflow, as far as the display knows it: two jobs, one of which has no log."""
    logger = logging.Logger("snakemake")
    handler.name = "DefaultStreamHandler"
    logger.addHandler(handler)
    rule = SimpleNamespace(name="tissue")
    fields = {"rule": rule, "wildcards_dict": {"slide": "a"}, "resources": {"_cores": 1, "runtime": 3}}
    jobs = [
        SimpleNamespace(log=["absent.log"], output=["a", "b"], **fields),
        SimpleNamespace(log=[], output=[], **fields),
    ]
    return SimpleNamespace(
        output_settings=SimpleNamespace(**{"verbose": False, "quiet": {"host"}} | settings),
        logger_manager=SimpleNamespace(logger=logger),
        dag=SimpleNamespace(needrun_jobs=lambda: jobs, jobid=jobs.index),
        global_resources={"_cores": 2},
        local_exec=True,
    )


def test_the_display_stands_before_snakemakes_own_and_goes_with_the_run(tmp_path):
    stream = io.StringIO()
    workflow = make_workflow(own := logging.StreamHandler(stream))
    display = run_display.show_run(workflow, CohortPaths(tmp_path))
    logger = workflow.logger_manager.logger
    assert logger.handlers == [display, own]
    assert {number: job.name for number, job in display.jobs.items()} == {0: "tissue a"}
    logger.info("rule tissue: ...", extra={"event": "job_info", "jobid": 0, "log": ["absent.log"]})
    logger.info("a message")
    logger.info("Finished jobid: 0", extra={"event": "job_finished", "job_id": 0})
    assert run_display.end_run(workflow) == ["1 of 1 jobs done in 0 s."]
    assert logger.handlers == [own]
    assert stream.getvalue().split("\n")[1:] == ["a message", ""], "after the first line of the display"
    assert run_display.end_run(workflow) == []


@pytest.mark.parametrize("settings", [{"verbose": True}, {"quiet": {"all"}}])
def test_whoever_asks_for_all_or_nothing_gets_it(tmp_path, settings):
    workflow = make_workflow(logging.StreamHandler(io.StringIO()), **settings)
    assert run_display.show_run(workflow, CohortPaths(tmp_path)) is None
    assert run_display.end_run(workflow) == []


def test_another_logger_of_the_users_is_left_alone(tmp_path):
    workflow = make_workflow(handler := logging.StreamHandler(io.StringIO()))
    handler.name = "a plugin's"
    assert run_display.show_run(workflow, CohortPaths(tmp_path)) is None
