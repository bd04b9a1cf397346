"""The rows of the result tables by planted settings, without Snakemake."""

from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest

from slpd_core.workflow.rows import Rows

ROOT = Path(__file__).parents[2]
RESULTS = "results/cohort"
PLAIN = {"classifiers": {"patch_tokens": ["knn"]}}
TASKS = {"subtype": {}, "grade": {}}


@pytest.fixture
def compared(rows) -> Rows:
    """A run per fold beside one of all slides, and a patch encoder to compare with."""
    return rows(
        pretrain={"runs": {"all": {}, "each": {"train_on": "train_fold", "init_from": "mine.safetensors"}}},
        patch_encoder={"compared": {"uni": {"source": "random", "pooling": "cls_mean"}}},
        evaluate={"classifiers": {"mean_color": ["knn"], "uni": ["knn"], "all": ["vit_wsi"], "each": ["mil"]}},
    )


@pytest.mark.parametrize(
    ("features", "embed", "ledger"),
    [
        ("each", f"{RESULTS}/embed/each.fold1.parquet", "ledger"),
        ("all", f"{RESULTS}/embed/all.parquet", "ledger"),
        ("mean_color", [], "ledger"),
        ("uni", [], "compared/uni"),
    ],
)
def test_a_row_is_made_from_the_encoder_that_has_not_seen_its_test_slides(compared, features, embed, ledger):
    row = Wildcards(task="label", features=features, classifier="mil", fold="1")
    assert compared.embed_table(row) == embed
    assert compared.tokens_ledger(row) == f"{RESULTS}/{ledger}/ledger.parquet"
    assert compared.tokens_dir(row) == f"{RESULTS}/{ledger.removesuffix('ledger')}/tokens".replace("//", "/")
    folder = f"{RESULTS}/evaluate/label/{features}/mil"
    assert compared.models(row) == [f"{folder}/fold{fold}.safetensors" for fold in (0, 1)]


def test_a_rows_embeddings_come_fold_by_fold(compared):
    tables = [compared.embed_tables(Wildcards(features=features)) for features in ("each", "all")]
    assert tables == [
        [f"{RESULTS}/embed/each.fold{fold}.parquet" for fold in (0, 1)],
        [f"{RESULTS}/embed/all.parquet"] * 2,
    ]


def test_a_fold_that_begins_as_another_is_not_it(rows):
    many = rows(folds={"n_folds": 12}, pretrain={"runs": {"slpd": {"train_on": "train_fold"}, "dino": {}}})
    assert many.embed_table(Wildcards(features="slpd", fold="11")) == f"{RESULTS}/embed/slpd.fold11.parquet"


def test_the_report_joins_every_row_and_fold_and_shows_what_there_is(compared, rows):
    assert len(compared.all_predictions()) == 4 * 2
    assert compared.all_predictions()[3] == f"{RESULTS}/evaluate/label/uni/knn/fold1.parquet"
    assert compared.all_heatmaps() == [f"{RESULTS}/heatmaps/label/all/vit_wsi.jpg"]
    assert [*compared.figures] == ["label/roc", "label/predictions", "label/knn", "training", "tsne"]
    plain = rows(pretrain={"runs": {}}, evaluate={"classifiers": {"patch_tokens": ["knn"]}})
    assert [*plain.figures] == ["label/roc", "label/predictions"]
    assert plain.all_heatmaps() == plain.encoders.galleries == []
    assert "patch_encoder" in rows(patch_encoder={"source": "dino"}).figures


def test_each_kind_of_endpoint_has_figures_of_its_own(rows):
    kinds = {"grade": "ordinal", "tmb": "regression", "os": "survival"}
    figures = rows(tasks=[*kinds], kinds=kinds).figures
    assert [name for name in figures if "/" in name] == [
        *("grade/predictions", "grade/knn", "tmb/predictions", "os/kaplan_meier", "os/dynamic_auc")
    ]
    captions = ROOT / "rules" / "captions"
    assert all((captions / f"{name.rpartition('/')[2]}.rst").is_file() for name in figures)


def test_protocols_are_of_all_features_and_of_tasks_with_classes(rows):
    evaluate = {"classifiers": {"uni": ["knn"], "each": ["mil", "knn"], "all": []}, "protocols": ["few_shot"]}
    sections = {
        "pretrain": {"runs": {"all": {}, "each": {"train_on": "train_fold"}}},
        "patch_encoder": {"compared": {"uni": {"pooling": "cls_mean"}}},
        "evaluate": evaluate,
    }
    kinds = {"grade": "ordinal", "os": "survival"}
    some = rows(["subtype", "grade", "os"], kinds=kinds, **sections)
    folder = f"{RESULTS}/few_shot"
    assert some.all_protocols() == [f"{folder}/{name}.parquet" for name in ("subtype/uni", "subtype/each", "grade/uni")]
    assert some.tasks_of("few_shot") == ["subtype", "grade"]
    assert [name for name in some.figures if "few_shot" in name] == ["subtype/few_shot", "grade/few_shot"]
    assert (ROOT / "rules" / "captions" / "few_shot.rst").is_file()
    assert some.embed_tables(Wildcards(features="uni")) == []
    overridden = rows(pretrain={"n_prototypes": 3, "runs": {"all": {"n_prototypes": 2}}}, evaluate=PLAIN)
    numbers = [overridden.retrieval_section(Wildcards(features=name))["n_prototypes"] for name in ("all", "mean_token")]
    assert numbers == [2, 3]
    with pytest.raises(ValueError, match=r"few_shot need classes, but no task has any \(kind survival\)"):
        rows(["os"], kinds=kinds, **sections)
    assert (
        rows([], evaluate={"protocols": ["few_shot"]}).all_protocols()
        == rows().all_protocols()
        == rows().tasks_of("few_shot")
        == []
    )


def test_each_task_has_all_rows_and_figures_of_its_own(rows):
    classifiers = {"classifiers": {"patch_tokens": ["knn"], "slpd": ["mil", "vit_wsi"]}}
    two = rows(["subtype", "grade"], labels={"tasks": TASKS}, evaluate=classifiers)
    pairs = [("patch_tokens", "knn"), ("slpd", "mil"), ("slpd", "vit_wsi")]
    assert two.evaluated == [(task, *pair) for task in ("subtype", "grade") for pair in pairs]
    assert two.all_heatmaps() == [f"{RESULTS}/heatmaps/{task}/slpd/vit_wsi.jpg" for task in ("subtype", "grade")]
    assert [*two.figures] == [
        *(f"{task}/{name}" for task in ("subtype", "grade") for name in ("roc", "predictions", "knn")),
        *("training", "tsne"),
    ]
    assert two.figures["grade/roc"] == ("Results", "ROC curves (grade)")
    assert len({*two.figures.values()}) == len(two.figures)
    assert rows(evaluate=classifiers).figures["label/roc"] == ("Results", "ROC curves")


@pytest.mark.parametrize(("fold_task", "followed"), [(None, "subtype"), ("grade", "grade")])
def test_a_run_per_fold_has_rows_of_the_task_alone_whose_folds_it_follows(rows, fold_task, followed):
    """Its encoders have seen test slides of the other task."""
    runs = {"all": {}, "each": {"train_on": "train_fold"}}
    classifiers = {"all": ["knn"], "each": ["vit_wsi"]}
    two = rows(
        ["subtype", "grade"],
        labels={"tasks": TASKS},
        pretrain={"runs": runs, "fold_task": fold_task},
        evaluate={"classifiers": classifiers},
    )
    expected = [("subtype", "all", "knn"), ("grade", "all", "knn"), (followed, "each", "vit_wsi")]
    assert sorted(two.evaluated) == sorted(expected)
    assert two.all_heatmaps() == [f"{RESULTS}/heatmaps/{followed}/each/vit_wsi.jpg"]
    predicted = [
        (task, model["features"], model["classifier"])
        for task in ("subtype", "grade")
        for model in two.external_models(Wildcards(external="rome", task=task))
    ]
    assert predicted == two.evaluated


def test_without_labels_there_is_nothing_to_evaluate_and_nothing_to_predict(rows):
    none = rows(tasks=(), predict={"sheet": "rome.csv"})
    assert none.evaluated == none.all_predictions() == none.all_heatmaps() == []
    assert [*none.figures] == ["training", "tsne"]
    with pytest.raises(ValueError, match="no slide of the cohort has a label to learn from; add labels"):
        none.all_external_predictions(Wildcards())


def test_external_slides_are_predicted_by_all_folds_from_each_folds_embeddings(compared):
    rome = f"{RESULTS}/predict/rome"
    assert compared.external_inputs(Wildcards(external="rome", task="label")) == [
        *[f"{RESULTS}/evaluate/label/all/vit_wsi/fold{fold}.safetensors" for fold in (0, 1)],
        f"{rome}/embed/all.parquet",
        f"{rome}/ledger.parquet",
        *[f"{RESULTS}/evaluate/label/each/mil/fold{fold}.safetensors" for fold in (0, 1)],
        *[f"{rome}/embed/each.fold{fold}.parquet" for fold in (0, 1)],
    ]


def test_every_external_cohort_has_predictions_of_every_task(rows, compared):
    with pytest.raises(ValueError, match=r"predict\.sheet: no slides to predict"):
        compared.all_external_predictions(Wildcards())
    two = rows(["subtype", "grade"], labels={"tasks": TASKS}, predict={"sheet": {"rome": "r.csv", "oslo": "o.csv"}})
    assert two.all_external_predictions(Wildcards()) == [
        f"{RESULTS}/predict/{external}/{task}/predictions.csv"
        for external in ("rome", "oslo")
        for task in ("subtype", "grade")
    ] + [f"{RESULTS}/predict/{external}/index.html" for external in ("rome", "oslo")]
    of_both = [
        path for task in ("subtype", "grade") for path in two.external_tested(Wildcards(external="rome", task=task))
    ]
    assert two.external_tested(Wildcards(external="rome")) == of_both
    each = f"{RESULTS}/predict/rome/embed/each.fold0.parquet", f"{RESULTS}/embed/each.fold0.parquet"
    assert compared.external_embeds(Wildcards(external="rome"))["each"] == each


def test_external_cohorts_with_labels_are_scored_by_the_rows_that_predict(rows):
    scored = [("rome", "grade")]
    both = {"sheet": {"rome": "r.csv", "oslo": "o.csv"}, "classifiers": {"slpd": ["mil"]}}
    classifiers = {"classifiers": {"patch_tokens": ["knn"], "slpd": ["mil"]}}
    two = rows(["subtype", "grade"], scored, labels={"tasks": TASKS}, predict=both, evaluate=classifiers)
    assert two.external_tables == [f"{RESULTS}/predict/rome/grade/table.parquet"]
    assert two.all_external_predictions(Wildcards())[4:-2] == two.external_tables
    assert two.external_tested(Wildcards(external="rome", task="grade")) == [
        f"{RESULTS}/evaluate/grade/slpd/mil/fold{fold}.parquet" for fold in (0, 1)
    ]
    each = {"runs": {"slpd": {"train_on": "train_fold"}}}  # follows the folds of subtype
    followed = rows(
        ["subtype", "grade"], scored, labels={"tasks": TASKS}, predict=both, evaluate=classifiers, pretrain=each
    )
    assert followed.external_tables == []


def test_external_slides_of_a_compared_encoder_have_a_ledger_of_their_own(rows):
    classifiers = {"uni": ["knn"]}
    own = rows(
        patch_encoder={"compared": {"uni": {"pooling": "cls_mean"}}},
        evaluate={"classifiers": classifiers},
        predict={"classifiers": classifiers},
    )
    (model,) = own.external_models(Wildcards(external="rome", task="label"))
    assert model["embeds"] == []
    assert model["ledger"] == f"{RESULTS}/predict/rome/compared/uni/ledger.parquet"
    assert model["tokens"] == f"{RESULTS}/compared/uni/tokens"


def test_a_task_without_rows_is_refused(rows):
    each = {"runs": {"each": {"train_on": "train_fold"}}}
    with pytest.raises(ValueError, match=r"labels\.tasks\.grade: no row .* add patch_tokens, or a run on all slides"):
        rows(["subtype", "grade"], labels={"tasks": TASKS}, pretrain=each, evaluate={"classifiers": {"each": ["mil"]}})


def touch_table(cohort: str, task: str) -> str:
    """Make an empty file as a cohort's result table of a task."""
    path = Path("results", cohort, "report", task, "table.parquet")
    path.parent.mkdir(parents=True)
    path.touch()
    return str(path)


def test_tables_join_this_cohort_and_others_that_are_finished(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"report\.tables: none is named"):
        rows().joined_tables(Wildcards())
    names = ["cohort", "done", "both/grade", "pending"]
    joined = rows(["subtype"], report={"tables": {"all": {"cohorts": names, "rows": ["slpd/mil"]}}})
    touch_table("cohort", "label")  # of before the task had a name
    others = [touch_table("done", "grade"), touch_table("both", "grade")]
    touch_table("both", "label")
    assert joined.joined_tables(Wildcards()) == [f"{RESULTS}/report/subtype/table.parquet", *others]
    assert [*joined.result_tables] == names


@pytest.mark.parametrize("cohort", ["cohort", "both"])
def test_a_table_names_the_task_of_a_cohort_with_several(rows, tmp_path, monkeypatch, cohort):
    monkeypatch.chdir(tmp_path)
    touch_table("both", "grade")
    touch_table("both", "subtype")
    joined = rows(["grade", "subtype"], report={"tables": {"all": {"cohorts": [cohort], "rows": ["slpd/mil"]}}})
    with pytest.raises(ValueError, match=f"{cohort} has tasks grade, subtype; write {cohort}/grade, for example"):
        joined.joined_tables(Wildcards())
