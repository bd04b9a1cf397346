"""Tasks are what settings and tables of labels name, before any job runs."""

from pathlib import Path
from types import SimpleNamespace as Wildcards

import pandas as pd
import pytest
import yaml

from slpd_core import config
from slpd_core.workflow.tasks import Tasks

ROOT = Path(__file__).parents[2]
SLIDES = pd.DataFrame({"slide_id": ["a1", "a2", "b", "c", "d"], "patient_id": ["a", "a", "b", "c", "d"]})
SHEET = "slide_id,path,label\na1,a1.svs,x\na2,a2.svs,x\nb,b.svs,y\nc,c.svs,y\nd,d.svs,\n"
CLINICAL = "patient_id,kras,stage\na,wt,I\nb,mut,II\nc,mut,NA\nd,wt,II\n"
NAMED = {"key": "patient_id", "tasks": {"mutation": {"column": "kras"}, "stage": {}}}


@pytest.fixture
def tasks(tmp_path):
    """The tasks of a sheet and, where there is one, of a table of labels."""

    def make(sheet: str = SHEET, clinical: str = "", **labels) -> Tasks:
        (tmp_path / "slides.csv").write_text(sheet)
        if clinical:
            (tmp_path / "clinical.csv").write_text(clinical)
            labels["path"] = str(tmp_path / "clinical.csv")
        values = yaml.safe_load((ROOT / "config.yaml").read_text())
        values["sheet"]["path"] = str(tmp_path / "slides.csv")
        values["labels"] |= labels
        return Tasks(config.load(values), SLIDES)

    return make


def label_of(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["slide_id"], table["label"], strict=True))


def test_a_sheets_label_is_the_task_of_that_name(tasks, tmp_path):
    made = tasks()
    assert made.names == ["label"]
    assert made.path == tmp_path / "slides.csv"
    assert made.arguments(Wildcards(task="label")) == {
        **{"kind": "classification", "classes": [], "columns": ["label"]},
        **{"key": "slide_id", "id_column": "slide_id"},
    }
    assert label_of(made.labels["label"]) == {"a1": "x", "a2": "x", "b": "y", "c": "y"}


@pytest.mark.parametrize("sheet", ["slide_id,path\na1,a1.svs\n", "slide_id,path,label\na1,a1.svs,\na2,a2.svs,NA\n"])
def test_a_sheet_without_labels_has_no_task(tasks, sheet):
    made = tasks(sheet)
    assert made.names == []
    assert made.labels == {}


def test_tasks_have_labels_by_patient_from_a_table_of_their_own(tasks, tmp_path):
    made = tasks("slide_id,path\na1,a1.svs\n", CLINICAL, **NAMED)
    assert made.names == ["mutation", "stage"]
    assert made.path == tmp_path / "clinical.csv"
    assert made.arguments(Wildcards(task="mutation")) == {
        **{"kind": "classification", "classes": [], "columns": ["kras"]},
        **{"key": "patient_id", "id_column": "patient_id"},
    }
    assert label_of(made.labels["mutation"]) == {"a1": "wt", "a2": "wt", "b": "mut", "c": "mut", "d": "wt"}
    assert label_of(made.labels["stage"]) == {"a1": "I", "a2": "I", "b": "II", "d": "II"}


def test_a_table_of_labels_without_named_tasks_has_the_task_of_its_column_label(tasks):
    made = tasks(clinical=CLINICAL.replace("kras", "label"), key="patient_id")
    assert made.names == ["label"]
    assert set(made.labels["label"]["label"]) == {"wt", "mut"}
    with pytest.raises(
        ValueError, match=r"clinical\.csv has no values in a column label; name its columns in labels\.ta"
    ):
        tasks(clinical=CLINICAL, key="patient_id")


def test_labels_can_be_switched_off(tasks):
    assert tasks(tasks=None).names == []
    assert tasks(clinical=CLINICAL, **NAMED | {"tasks": None}).labels == {}


def test_a_column_that_may_hold_the_label_is_suggested(tasks):
    waiting = tasks("slide_id,path,Diagnosis\na1,a1.svs,x\n").describe_waiting()
    assert "column Diagnosis may hold it: set sheet.columns: {label: Diagnosis}" in waiting
    assert "may hold it" not in tasks("slide_id,path\na1,a1.svs\n").describe_waiting()
    assert tasks().describe_waiting() == ""


def test_the_column_of_ids_may_have_another_name(tasks):
    made = tasks(clinical=CLINICAL.replace("patient_id", "case"), id_column="case", **NAMED)
    assert label_of(made.labels["mutation"])["b"] == "mut"


def test_what_matches_no_slide_is_in_doubt(tasks):
    made = tasks(clinical=CLINICAL + "D,mut,I\n", **NAMED)
    assert [doubt.split(": ")[0] for doubt in made.doubts] == ["task mutation", "task stage", "task stage"]
    assert "1 of its ids match no patient_id of the sheet: D" in made.doubts[0]
    assert made.doubts[-1].endswith("taken as no value: 'NA' (1)")


def test_a_table_of_labels_that_is_not_there_is_named(tasks, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.path: .*gone\.csv: no such table; correct the path"):
        tasks(path=str(tmp_path / "gone.csv"))


def test_problems_of_a_table_are_named_with_their_task(tasks):
    with pytest.raises(ValueError, match=r"labels\.tasks\.stage: .*clinical\.csv: 1 problem"):
        _ = tasks(clinical=CLINICAL.replace("d,wt,II", "d,wt,NA"), **NAMED).labels


def test_the_rows_of_a_task_change_with_its_labels_alone(tasks):
    """Its jobs run again where they do."""

    def rows(clinical: str, task: str) -> str:
        return tasks(clinical=clinical, **NAMED).rows(Wildcards(task=task))

    before = {task: rows(CLINICAL, task) for task in ("mutation", "stage")}
    changed = CLINICAL.replace("d,wt,II", "d,mut,II")
    assert rows(changed, "mutation") != before["mutation"]
    assert rows(changed, "stage") == before["stage"]
    elsewhere = CLINICAL.replace("\n", ",notes\n", 1) + "zz,wt,I,of no slide\n"
    assert {task: rows(elsewhere, task) for task in before} == before
    shuffled = "\n".join([CLINICAL.splitlines()[0], *reversed(CLINICAL.splitlines()[1:])]) + "\n"
    assert {task: rows(shuffled, task) for task in before} == before


def test_a_column_of_the_sheet_with_another_name_is_the_task_label(tmp_path):
    (tmp_path / "slides.csv").write_text("file,diagnosis\na1,x\na2,x\nb,y\nc,y\n")
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    columns = {"slide_id": "file", "path": "file", "label": "diagnosis"}
    values["sheet"] |= {"path": str(tmp_path / "slides.csv"), "columns": columns}
    made = Tasks(config.load(values), SLIDES)
    assert label_of(made.labels["label"]) == {"a1": "x", "a2": "x", "b": "y", "c": "y"}


def test_a_folder_of_slides_has_no_labels_but_those_of_a_table(tmp_path):
    (tmp_path / "slides").mkdir()
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["sheet"]["path"] = str(tmp_path / "slides")
    assert Tasks(config.load(values), SLIDES).names == []
    values["labels"]["tasks"] = {"kras": {}}
    with pytest.raises(ValueError, match=r"labels\.path: .*slides is a folder of slides, without labels"):
        Tasks(config.load(values), SLIDES)
    (tmp_path / "clinical.csv").write_text(CLINICAL)
    values["labels"] |= {"path": str(tmp_path / "clinical.csv"), "key": "patient_id"}
    assert Tasks(config.load(values), SLIDES).names == ["kras"]
