"""The labels of external cohorts: from their sheets or tables of their own, for the tasks of the cohort."""

from pathlib import Path
from types import SimpleNamespace as Wildcards

import pandas as pd
import pytest
import yaml

from slpd_core import config
from slpd_core.workflow.external_labels import ExternalLabels
from slpd_core.workflow.tasks import Tasks

ROOT = Path(__file__).parents[2]
ROME = pd.DataFrame({"slide_id": ["r1", "r2", "r3"], "patient_id": ["p", "p", "q"]})
OSLO = pd.DataFrame({"slide_id": ["o1", "o2"], "patient_id": ["o1", "o2"]})
COHORT = pd.DataFrame({"slide_id": [*"abcd"], "patient_id": [*"abcd"]})
CLINICAL = "slide_id,label,kras,months,died\na,x,wt,1,1\nb,x,mut,2,0\nc,y,wt,3,1\nd,y,mut,4,0\n"
TASKS = {"label": {}, "kras": {}, "os": {"kind": "survival", "time": "months", "event": "died"}}


@pytest.fixture
def make(tmp_path):
    """The labels of the external cohorts rome and oslo by the texts of their sheets; tasks: of the cohort."""

    def make(rome: str, oslo: str = "slide_id,path\n", tasks=TASKS, columns=None, of_rome=None) -> ExternalLabels:
        texts = {"rome": rome, "oslo": oslo, "slides": CLINICAL}
        for name, text in texts.items():
            (tmp_path / f"{name}.csv").write_text(text)
        values = yaml.safe_load((ROOT / "config.yaml").read_text())
        values["sheet"] |= {"path": str(tmp_path / "slides.csv"), "columns": columns or {}}
        values["labels"]["tasks"] = tasks
        sheets = {name: str(tmp_path / f"{name}.csv") for name in ("rome", "oslo")}
        values["predict"] |= {"sheet": sheets, "labels": {"rome": of_rome} if of_rome else None}
        settings = config.load(values)
        return ExternalLabels(settings, {"rome": ROME, "oslo": OSLO}, Tasks(settings, COHORT))

    return make


def test_a_sheet_scores_the_tasks_whose_columns_it_has(make):
    labels = make("slide_id,path,label,kras\nr1,r1.svs,x,\nr2,r2.svs,y,\nr3,r3.svs,,\n")
    assert labels.pairs == [("rome", "label")]  # no value of kras, no column of os, no label in oslo
    table = labels.tables["rome", "label"]
    assert dict(zip(table["slide_id"], table["label"], strict=True)) == {"r1": "x", "r2": "y"}
    assert labels.arguments(Wildcards(external="rome", task="label")) == {
        **{"kind": "classification", "classes": [], "columns": ["label"], "external": True},
        **{"key": "slide_id", "id_column": "slide_id"},
    }


def test_a_task_may_have_labels_in_one_external_cohort_only(make):
    labels = make(
        "slide_id,path,label\nr1,r1.svs,x\n", "slide_id,path,months,died,label\no1,o1.svs,7,1,x\no2,o2.svs,8,0,x\n"
    )
    assert labels.pairs == [("rome", "label"), ("oslo", "label"), ("oslo", "os")]
    assert labels.tables["oslo", "os"][["time", "event"]].to_numpy().tolist() == [[7, True], [8, False]]


def test_any_classes_one_or_unknown_ones_are_read(make):
    """What they are worth is said where they are scored."""
    for texts in (["x", "x", "x"], ["x", "y", "z"], ["x", "X", "x "]):
        rows = "".join(f"r{i + 1},r.svs,{text}\n" for i, text in enumerate(texts))
        table = make(f"slide_id,path,label\n{rows}").tables["rome", "label"]
        assert table["label"].tolist() == [text.strip() for text in texts]


def test_an_ordered_task_reads_classes_that_its_order_lacks(make):
    ordered = {"label": {"kind": "ordinal", "order": ["x", "y"]}}
    labels = make("slide_id,path,label\nr1,r1.svs,x\nr2,r2.svs,z\n", tasks=ordered)
    assert labels.tables["rome", "label"]["label"].tolist() == ["x", "z"]


def test_columns_are_renamed_as_in_the_sheet_or_have_our_names(make):
    renamed = {"slide_id": "scan", "label": "diagnosis"}
    with_names = "scan,path,diagnosis\nr1,r1.svs,x\n"
    sheet = CLINICAL.replace("slide_id", "scan").replace("label", "diagnosis")
    for text in (with_names, with_names.replace("scan", "slide_id").replace("diagnosis", "label")):
        labels = make(text, tasks={"label": {}}, columns=renamed) if sheet else None
        assert labels.pairs == [("rome", "label")]


def test_labels_may_be_in_a_table_of_patients(make, tmp_path):
    (tmp_path / "clinical.csv").write_text("case,kras\np,wt\nq,mut\nr,mut\n")
    table = {"path": str(tmp_path / "clinical.csv"), "key": "patient_id", "id_column": "case"}
    labels = make("slide_id,path,label\nr1,r1.svs,x\n", of_rome=table)
    assert labels.pairs == [("rome", "kras")]
    assert labels.tables["rome", "kras"]["label"].tolist() == ["wt", "wt", "mut"]
    assert labels.path(Wildcards(external="rome")) == tmp_path / "clinical.csv"
    (doubt,) = labels.doubts
    assert doubt.startswith("external cohort rome, task kras: ")
    assert doubt.endswith("clinical.csv: 1 of its ids match no patient_id of the sheet: r")


def test_the_fingerprint_changes_with_a_label_and_nothing_else(make):
    of = Wildcards(external="rome", task="label")
    known = make("slide_id,path,label,kras\nr1,r1.svs,x,\nr2,r2.svs,y,\n").rows(of)
    assert make("slide_id,path,label\nr1,moved.svs,x\nr2,r2.svs,y\n").rows(of) == known
    assert make("slide_id,path,label\nr1,r1.svs,x\nr2,r2.svs,x\n").rows(of) != known


def test_a_table_that_is_not_there_or_has_no_task_is_refused(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"predict\.labels\.rome\.path: gone\.csv: no such table"):
        make("slide_id,path\n", of_rome={"path": "gone.csv"})
    (tmp_path / "clinical.csv").write_text("slide_id,stage\nr1,I\n")
    with pytest.raises(ValueError, match=r"has no column of a task \(label: label; kras: kras; os: months, died"):
        make("slide_id,path\n", of_rome={"path": str(tmp_path / "clinical.csv")})


def test_two_labels_of_one_slide_are_refused(make, tmp_path):
    (tmp_path / "clinical.csv").write_text("slide_id,label\nr1,x\nr1,y\n")
    with pytest.raises(ValueError, match=r"1 problem\(s\)\n  row 3: label of 'r1' is 'y', but 'x' in row 2"):
        assert make("slide_id,path\n", of_rome={"path": str(tmp_path / "clinical.csv")}).pairs


def test_a_cohort_without_tasks_scores_nothing(make, tmp_path):
    (tmp_path / "clinical.csv").write_text("slide_id,label\nr1,x\n")
    assert make("slide_id,path\n", tasks=None, of_rome={"path": str(tmp_path / "clinical.csv")}).pairs == []


def test_a_folder_of_slides_has_no_labels(make, tmp_path):
    labels = make("slide_id,path\n")
    labels.settings.predict.sheet["rome"] = str(tmp_path)
    assert ExternalLabels(labels.settings, {"rome": ROME}, labels.tasks).pairs == []
