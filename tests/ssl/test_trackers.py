"""Trackers get what the history has: each epoch once, one run per training, and no failure of theirs stops it."""

import json
import logging
import math
import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slpd_core.ssl import trackers
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.trackers import Trackers

ROWS = [{"epoch": 0, "loss": 2.0, "inter": math.nan}, {"epoch": 1, "loss": 1.5, "inter": 3.0}]
SCALARS = {"loss": [(0, 2.0), (1, 1.5)], "inter": [(1, 3.0)]}


class Service:
    """What wandb or mlflow keeps of each run, by its id."""

    def __init__(self):
        self.runs, self.down = {}, False

    def begin(self, run_id, name, config):
        run_id = run_id or f"run{len(self.runs)}"
        run = self.runs.setdefault(run_id, SimpleNamespace(id=run_id, name=name, config={}, scalars={}, ended=False))
        run.config |= config
        return run

    def add(self, run_id, name, value, step):
        if self.down:
            raise ConnectionError("no route to host")
        self.runs[run_id].scalars.setdefault(name, []).append((step, value))


def fake_wandb(service):
    def init(*, project, name, config, dir, id, resume):
        assert (project, resume) == ("slpd", "allow")
        run = service.begin(id, name, config)

        def log(values, step):
            for key, value in values.items():
                service.add(run.id, key, value, step)

        return SimpleNamespace(id=run.id, log=log, finish=lambda: setattr(run, "ended", True))

    return SimpleNamespace(init=init)


def fake_mlflow(service):
    def create_run(experiment_id, run_name):
        assert experiment_id == "7"
        return SimpleNamespace(info=SimpleNamespace(run_id=service.begin(None, run_name, {}).id))

    client = SimpleNamespace(
        create_run=create_run,
        log_param=lambda run_id, key, value: service.runs[run_id].config.update({key: value}),
        log_metric=service.add,
        set_terminated=lambda run_id: setattr(service.runs[run_id], "ended", True),
    )
    experiments = {"slpd": SimpleNamespace(experiment_id="7")}
    return SimpleNamespace(MlflowClient=lambda: client, set_experiment=experiments.__getitem__)


@pytest.fixture(params=["wandb", "mlflow"])
def tracked(request, monkeypatch):
    """The name of a tracker and the service behind it."""
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    service = Service()
    made = {"wandb": fake_wandb, "mlflow": fake_mlflow}[request.param](service)
    monkeypatch.setitem(sys.modules, request.param, made)
    return request.param, service


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "cohort" / "pretrain" / "slpd"
    folder.mkdir(parents=True)
    return Checkpoint(folder / "checkpoint.pt", {"epochs": 2, "init_from": "/home/me/vit.pth"})


def read_tensorboard(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_has_each_epoch_once_and_nothing_of_an_earlier_run(checkpoint):
    for rows in ([{"epoch": 0, "loss": 9.0}, {"epoch": 1, "loss": 8.0, "old": 1.0}], ROWS):
        opened = Trackers(checkpoint, None, resumed=False)
        for row in rows:
            opened.log(row)
        opened.close()
    assert read_tensorboard(checkpoint.path.with_name("tensorboard")) == SCALARS


def test_a_training_that_goes_on_is_one_run(checkpoint, tracked):
    name, service = tracked
    for resumed, row in zip((False, True), ROWS, strict=True):
        opened = Trackers(checkpoint, name, resumed=resumed)
        opened.log(row)
        opened.close()
    (run,) = service.runs.values()
    assert (run.name, run.scalars, run.ended) == ("cohort/pretrain/slpd", SCALARS, True)
    assert run.config == {"epochs": 2}  # a path is not sent
    assert read_tensorboard(checkpoint.path.with_name("tensorboard")) == SCALARS
    Trackers(checkpoint, name, resumed=False).close()  # begun afresh
    assert len(service.runs) == 2
    assert json.loads((checkpoint.path.parent / "tracker.json").read_text()) == {name: "run1"}


def test_a_training_that_changes_its_tracker_begins_a_run_there(checkpoint, tracked):
    (checkpoint.path.parent / "tracker.json").write_text('{"another": "x"}')
    Trackers(checkpoint, tracked[0], resumed=True).close()
    assert list(tracked[1].runs) == ["run0"]


def test_a_service_that_fails_is_left_with_a_warning(checkpoint, tracked, caplog):
    name, service = tracked
    opened = Trackers(checkpoint, name, resumed=False)
    service.down = True
    with caplog.at_level(logging.WARNING, "slpd"):
        for row in ROWS:
            opened.log(row)
        opened.close()
    assert [record.message for record in caplog.records] == [
        f"{name} takes no scalars (ConnectionError: no route to host); history.csv has them"
    ]
    assert read_tensorboard(checkpoint.path.with_name("tensorboard")) == SCALARS


def test_a_missing_package_stops_before_the_training_with_the_remedy(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ModuleNotFoundError, match=r"tracker: mlflow, but .* pip install 'slpd\[mlflow\]', or"):
        Trackers(checkpoint, "mlflow", resumed=False)


def test_only_the_main_process_reports(checkpoint, tracked, monkeypatch):
    monkeypatch.setattr(trackers.distributed, "is_main_process", lambda: False)
    opened = Trackers(checkpoint, tracked[0], resumed=False)
    opened.log(ROWS[0])
    opened.close()
    assert tracked[1].runs == {}
    assert not checkpoint.path.with_name("tensorboard").exists()
