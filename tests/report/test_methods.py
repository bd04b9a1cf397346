"""The methods paragraph names what the run used, and cites it; what it cites is in its BibTeX, and nothing else."""

import re

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts, config
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import methods, references, result_rows, result_table
from slpd_core.report.task import TaskResults
from tests.report.planted_endpoints import FOLLOW_UP, GRADES, VALUES, plant_predictions

LABELS = make_endpoint("classification", ["x", "y"])
LEDGER = pd.DataFrame(
    {
        "patient_id": ["p1", "p2", "p2", "p3"],
        "status": [artifacts.OK, artifacts.OK, artifacts.QUARANTINED, artifacts.OK],
        "tissue_source": ["segmented", "segmented", "segmented", "outlines"],
        "regions": [3, 4, 0, 5],
    }
)


def plant_results(task, endpoint, classifiers):
    """Results of a task: each classifier on regions of slpd, in two folds."""
    folds = []
    for fold in range(2):
        if endpoint is LABELS:
            frame = plant_predictions(GRADES, fold, 1.0)
            frame["label"] = np.where(frame["label"] == "low", "x", "y")
            frame = frame.assign(p_x=frame["p_low"], p_y=1 - frame["p_low"]).drop(columns=GRADES.prediction_columns)
        else:
            frame = plant_predictions(endpoint, fold, 1.0)
        folds.append(frame)
    of_row = {"features": "slpd", "level": "region", "encoder_source": "hipt", "encoder_name": "vit", "bags": "slide"}
    tables = [(frame, of_row | {"classifier": name} | endpoint.meta) for name in classifiers for frame in folds]
    rows = result_rows.join_folds(tables, ["slpd"])
    table = result_table.make_table(rows, rows[-1], endpoint).assign(splits="2 folds drawn here, grouped by patient")
    slides = pd.concat(folds, ignore_index=True)
    return TaskResults(task, endpoint, slides, slides.assign(part="test"), pd.DataFrame(), rows, rows[-1], table, {})


TASKS = {
    "label": plant_results("label", LABELS, ["knn", "logreg", "mil", "abmil", "dsmil", "vit_wsi"]),
    "grade": plant_results("grade", GRADES, ["knn"]),
    "tmb": plant_results("tmb", VALUES, ["logreg"]),
    "os": plant_results("os", FOLLOW_UP, ["logreg"]),
}


def load(changes=None):
    """The settings of config.yaml with some changes, by section."""
    values = config.default_config().model_dump()
    for section, keys in ({"patch_encoder": {"source": "random"}} | (changes or {})).items():
        values[section] = values[section] | keys
    return config.load(values).methods


def describe(changes=None, tasks=TASKS):
    return "\n".join(methods.describe_methods(load(changes), LEDGER, tasks, seed=1))


HIPT = {"source": "hipt", "weights": "/data/secret/vit256.pth"}
OURS = {"source": "features", "name": "conch", "path": "/data/secret", "format": "trident"}
CHANGES = [
    {"regions": {"size_px": 2048}},
    {"regions": {"target_mpp": 1.0}},
    {"regions": {"min_tissue_fraction": 0.5}},
    {"regions": {"anchor": "tissue"}},
    {"regions": {"min_focus": 20.0}},
    {"regions": {"coordinates": "/data/secret", "format": "trident"}},
    {"tissue": {"method": "grandqc", "weights": "/data/secret/w.pth"}},
    {"tissue": {"method": "hest", "weights": "/data/secret/w.pth"}},
    {"tokens": {"stain_normalization": "macenko"}},
    {"tokens": {"stain_normalization": "reinhard"}},
    {"patch_encoder": HIPT},
    {"patch_encoder": OURS},
    {"patch_encoder": {"source": "dino"}},
    *({"patch_encoder": {"name": name, "source": None}} for name in ("uni", "virchow2", "h-optimus-0", "lunit-vits8")),
    {"patch_encoder": {"source": "random", "compared": {"other": {"name": "gigapath"}}}}
    | {"evaluate": {"classifiers": {"other": ["knn"]}}},
    {"pretrain": {"n_prototypes": 3}},
    {"pretrain": {"n_neighbors": 2}},
    {"pretrain": {"alpha_intra": 0.5}},
    {"pretrain": {"alpha_inter": 0.5}},
    {"pretrain": {"epochs": 30}},
    {"pretrain": {"batch_size": 64}},
    {"pretrain": {"matching": "nearest"}},
    {"pretrain": {"train_on": "train_fold"}},
    {"pretrain": {"koleo_weight": 0.1}},
    {"pretrain": {"prototype_start_epoch": 3}},
    {"pretrain": {"init_from": "/data/secret/vit4k.pth"}},
    *({"pretrain": {key: value}} for key, value in (("embed_dim", 96), ("weight_decay", 0.1), ("shared_center", True))),
    {"pretrain": {"runs": {"dino": {}, "slpd": {"preset": "authors_code"}}}},
    {"pretrain": {"runs": {"dino": {}, "slpd": {"clustering": "global", "alpha_inter": 0.0}}}},
    {"pretrain": {"epochs": 0, "init_from": "/data/secret/vit4k.pth"}},
    {"evaluate": {"epochs": 7}},
    {"evaluate": {"knn_n_neighbors": 9}},
    {"evaluate": {"select": "val", "lr_grid": [0.1, 0.2]}, "folds": {"val_fraction": 0.1}},
]


@pytest.mark.parametrize("changes", [None, *CHANGES], ids=str)
def test_what_is_cited_is_in_the_bibtex_and_nothing_else(changes):
    text = describe(changes)
    cited = references.select_references(text, methods.list_encoder_pages(load(changes)))
    bibtex = references.format_bibtex(cited)
    assert re.findall(r"^@\w+\{(.*),$", bibtex, re.MULTILINE) == references.list_citations(text)
    assert bibtex.count("{") == bibtex.count("}")
    named = references.name_citations(text, cited)
    assert "[@" not in named
    assert len(re.findall(r"\([^()]*et al\., \d{4}", named)) > 3


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_setting_that_changes_changes_the_text_which_names_no_folder(changes):
    text = describe(changes)
    assert text != describe()
    assert "/data" not in text
    assert "secret" not in text


def test_only_what_was_used_is_cited():
    cited = references.list_citations(describe({"patch_encoder": HIPT}, {"tmb": TASKS["tmb"]}))
    assert {"yu2023slpd", "chen2022scaling", "caron2021emerging", "molder2021sustainable"} <= {*cited}
    assert not {"ilse2018attention", "li2021dual", "cox1972regression", "cohen1968weighted"} & {*cited}
    without = describe({"pretrain": {"runs": {}}, "evaluate": {"classifiers": {"patch_tokens": ["knn"]}}}, {})
    assert not {"yu2023slpd", "caron2021emerging"} & {*references.list_citations(without)}


def test_every_reference_can_be_cited():
    cited = [*map(describe, [None, *CHANGES]), describe({"patch_encoder": {"name": "virchow", "source": None}})]
    assert {*references.read_references()} <= {*references.list_citations("\n".join(cited))}
    for key, entry in references.read_references().items():
        assert all(f"  {field}" in entry for field in ("author", "title", "year")), key


def test_settings_of_prototypes_are_named_of_runs_that_use_them_alone():
    dino, slpd = {"alpha_intra": 0.0, "alpha_inter": 0.0, "shared_center": True}, {"shared_center": True}
    text = describe({"pretrain": {"runs": {"dino": dino, "slpd": slpd}, "weight_decay": 0.1}}, {})
    changed = re.findall("(\\w+) was trained[^;]*;[^;]*paper's: ([^.]*.[^.]*)[.]", text)
    assert [(run, {*of.split(", ")}) for run, of in changed] == [
        ("dino", {"weight_decay 0.1"}),
        ("slpd", {"weight_decay 0.1", "shared_center True"}),
    ]
    assert "differ from the paper's" not in describe()


def test_counts_are_those_of_the_cohort():
    text = describe()
    assert "3 slides of 3 patients were used. 1 slide could not be read." in text
    assert "12 regions" in text
    assert "On 1 slide the tissue was outlined by hand" in text
    assert "2 folds drawn here, grouped by patient" in text


def test_names_keep_their_accents():
    entry = "@book{key,\n  author = {M{\\\"o}lder, F. and J{\\'e}gou, H.},\n  year   = {2020}\n}"
    assert references.name_citations("Text [@key].", {"key": entry}) == "Text (Mölder and Jégou, 2020)."
