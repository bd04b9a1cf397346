"""Tables over cohorts hold the numbers of each cohort's result table, and the paper's beside its cohorts'."""

import re
import struct
from pathlib import Path

import pandas as pd
import pytest
import yaml

from slpd_core import artifacts, config
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import protocol, tables

ROOT = Path(__file__).parents[2]
CLASSES = make_endpoint("classification", ["x", "y"])
NAMES = {
    "patch_tokens/mil": ("patch", "HIPT", "MIL"),
    "slpd/mil": ("region", "slpd", "MIL"),
    "slpd/vit_wsi": ("region", "slpd", "ViT_WSI"),
}


def result_table(rows, encoder="vit, HIPT's weights", splits="10 folds"):
    """The columns of a report's table that are read; rows: row -> (accuracy, auc), with a deviation of .01 each."""
    lines = [(row, *NAMES[row], accuracy, 0.01, auc, 0.01, encoder, splits) for row, (accuracy, auc) in rows.items()]
    names = ("row", "features", "pretraining", "classifier", "accuracy_mean", "accuracy_sd", "auc_mean", "auc_sd")
    return pd.DataFrame(lines, columns=[*names, "patch_encoder", "splits"])


def write_results(path, table):
    """Write the result table of a cohort; return its path."""
    artifacts.write_table(path, "results", table, artifacts.provenance("report", 1, {}) | CLASSES.meta)
    return path


@pytest.fixture
def run(tmp_path):
    """Join the result tables of cohorts (name -> rows, None without results); return the folder."""

    def run(cohorts, rows=tuple(NAMES)):
        paths = {cohort: tmp_path / cohort / "table.parquet" for cohort in cohorts}
        for cohort, scores in cohorts.items():
            if scores is not None:
                write_results(paths[cohort], result_table(scores))
        section = config.CohortTableConfig(cohorts=[*cohorts], rows=rows)
        named = {cohort: str(path) for cohort, path in paths.items()}
        tables.run(paths=named, sections={"table1": section}, out_dir=tmp_path / "tables")
        return tmp_path / "tables"

    return run


FIRST = {"patch_tokens/mil": (0.7, 0.8), "slpd/mil": (0.9, 0.85), "slpd/vit_wsi": (0.8, 0.95)}
SECOND = {"slpd/mil": (0.6, 0.6004), "slpd/vit_wsi": (0.5, 0.6001)}


def body(markdown):
    """The cells of a Markdown table, its heads first."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def test_each_cohort_has_its_columns_and_no_row_is_a_winner(run):
    heads, *lines = body((run({"a": FIRST, "b": SECOND}) / "table1.md").read_text())
    assert heads == ["Features", "Pretraining", "Classifier", "a Accuracy", "a AUC", "b Accuracy", "b AUC"]
    assert lines == [
        ["patch", "HIPT", "MIL", ".700±.010", ".800±.010", "–", "–"],
        ["region", "slpd", "MIL", ".900±.010", ".850±.010", ".600±.010", ".600±.010"],
        ["region", "slpd", "ViT_WSI", ".800±.010", ".950±.010", ".500±.010", ".600±.010"],
    ]


def test_scores_over_fewer_labels_stay_marked(run, tmp_path):
    run({"a": FIRST, "b": SECOND})
    write_results(tmp_path / "b" / "table.parquet", result_table(SECOND).assign(folds=10, partial_folds=3))
    text = (run({"a": FIRST, "b": None}) / "table1.md").read_text()
    assert [line[3:] for line in body(text)[2:]] == [
        [".900±.010", ".850±.010", ".600±.010†", ".600±.010†"],
        [".800±.010", ".950±.010", ".500±.010†", ".600±.010†"],
    ]
    assert "b: † In 3 of 10 folds a label is missing" in text


def test_the_numbers_are_those_of_the_cohorts(run):
    frame = pd.read_csv(run({"a": FIRST, "b": SECOND}) / "table1.csv", keep_default_na=False, na_values=[""])
    for cohort, rows in (("a", FIRST), ("b", SECOND)):
        table = frame[frame["cohort"] == cohort].set_index("row")
        for row, (accuracy, auc) in rows.items():
            assert table.loc[row, ["accuracy_mean", "auc_mean"]].tolist() == [accuracy, auc]
    assert frame.set_index(["cohort", "row"]).loc[("b", "patch_tokens/mil"), ["accuracy_mean", "auc_sd"]].isna().all()
    assert "b: not evaluated: patch_tokens/mil." in (run({"a": FIRST, "b": SECOND}) / "table1.md").read_text()


def test_every_format_prints_the_same_cells(run):
    folder = run({"tcga_nsclc": FIRST, "b": SECOND})
    _, *lines = body((folder / "table1.md").read_text())
    page, tex = (folder / "table1.html").read_text(), (folder / "table1.tex").read_text()
    of_page = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", page)
    assert [re.findall(r">([^<]+)</t[hd]>", line) for line in of_page] == lines
    of_tex = re.search(r"\\midrule\n(.*)\\bottomrule", tex, re.DOTALL)[1].splitlines()
    back = [line.removesuffix(r" \\").replace(r"$\pm$", "±").replace("--", "–").replace(r"\_", "_") for line in of_tex]
    assert [[cell.strip() for cell in line.split("&")] for line in back] == lines


def test_the_papers_numbers_stand_beside_ours_in_its_cohorts_only(run):
    folder = run({"tcga_nsclc": FIRST, "other": FIRST})
    heads, *lines = body((folder / "table1.md").read_text())
    assert heads[3:] == [
        *("tcga_nsclc Accuracy", "tcga_nsclc AUC", "tcga_nsclc Accuracy, paper", "tcga_nsclc AUC, paper"),
        *("other Accuracy", "other AUC"),
    ]
    assert [line[5:7] for line in lines] == [
        [".780±.126", ".864±.089"],
        [".856±.025", ".926±.017"],
        [".864±.042", ".939±.022"],
    ]


def test_the_protocol_of_numbers_beside_the_papers_is_noted(tmp_path):
    """Only in its cohorts. A row of mean colors has no encoder, and adds nothing."""
    table = pd.concat([result_table(FIRST), result_table(FIRST, encoder="").iloc[:1].assign(row="mean_color/knn")])
    rows, notes = [*NAMES, "mean_color/knn"], {}
    for cohort in ("tcga_brca", "other"):
        path = write_results(tmp_path / "t.parquet", table)
        notes[cohort] = tables.format_rows(tables.join_cohorts({cohort: path}, rows)).notes
    assert notes["other"] == []
    assert notes["tcga_brca"] == [
        "tcga_brca: our numbers are of vit, HIPT's weights; 10 folds. The paper's are of vit_small_patch16_224, HIPT's "
        "weights, RGB normalized by mean 0.485 0.456 0.406, std 0.229 0.224 0.225; HIPT's ten splits of TCGA-BRCA: a "
        "difference may come from that alone."
    ]


def test_a_number_published_without_deviation_has_none(tmp_path):
    table = result_table({"slpd/vit_wsi": (0.8, 0.9)}).assign(row="k3/vit_wsi")
    path = write_results(tmp_path / "t.parquet", table)
    table = tables.format_rows(tables.join_cohorts({"tcga_brca": path}, {"K = 3": "k3/vit_wsi"}))
    assert table.heads == ["Row"]
    assert table.lines == [
        (
            ["K = 3"],
            [".800±.010", ".900±.010", ".873", ".880"],
        )
    ]


def test_a_cohort_without_results_has_dashes_and_is_named(run):
    folder = run({"a": FIRST, "gone": None})
    _, *lines = body((folder / "table1.md").read_text())
    assert [line[5:] for line in lines] == [["–", "–"]] * 3
    for suffix in ("md", "html", "tex"):
        assert re.search(r"gone: no results yet \(.*is not there\)", (folder / f"table1.{suffix}").read_text())


def test_nothing_to_show_is_an_error(run):
    with pytest.raises(ValueError, match=r"report\.tables\.table1: none of its rows, dino/knn, is in .*table\.parquet"):
        run({"a": FIRST}, rows=["dino/knn"])


def test_a_damaged_result_table_is_named_with_its_cohort(tmp_path):
    path = write_results(tmp_path / "table.parquet", result_table(FIRST))
    content, value = path.read_bytes(), struct.pack("<d", FIRST["slpd/mil"][1])
    assert value in content
    path.write_bytes(content.replace(value, struct.pack("<d", 0.95)))
    with pytest.raises(ValueError, match=r"table\.parquet: damaged.*delete the file.*configuration of cohort a"):
        tables.join_cohorts({"a": path}, ["slpd/mil"])


LABEL = "a_b & <i>50 %</i> | *x* {y} $z$ #1 \\n"


def test_labels_are_text_in_every_format(run):
    folder = run({"a": FIRST}, rows={LABEL: "slpd/mil"})
    assert r"a_b & \<i\>50 %\</i\> \| \*x\* {y} $z$ #1 \\n" in (folder / "table1.md").read_text()
    assert r"a\_b \& <i>50 \%</i> | *x* \{y\} \$z\$ \#1 \textbackslash{}n &" in (folder / "table1.tex").read_text()
    page = (folder / "table1.html").read_text()
    assert "a_b &amp; &lt;i&gt;50 %&lt;/i&gt;" in page
    assert "<i>" not in page


def test_the_published_numbers_are_all_of_both_tables():
    frame = pd.read_csv(tables.PUBLISHED)
    assert frame.groupby(["cohort", "table"]).size().to_dict() == {
        (cohort, table): {1: 13, 2: 8}[table] for cohort in ("tcga_nsclc", "tcga_brca") for table in (1, 2)
    }
    assert not frame.duplicated(["cohort", "row"]).any()
    assert frame[["accuracy", "auc"]].apply(lambda column: column.between(0.5, 1)).all(axis=None)
    with_sd = frame["accuracy_sd"].notna() & frame["auc_sd"].notna()
    assert (with_sd == frame[["accuracy_sd", "auc_sd"]].notna().any(axis=1)).all()
    assert with_sd[frame["table"] == 1].all()


@pytest.mark.parametrize(("cohort", "row"), [("tcga_nsclc", "m4/vit_wsi"), ("tcga_brca", "m2/vit_wsi")])
def test_a_row_of_table_2_that_is_one_of_table_1_has_its_deviation(cohort, row):
    """The row of the cohort's M is in Table 1; Table 2 has no other deviations."""
    frame = pd.read_csv(tables.PUBLISHED).set_index(["cohort", "row"]).drop(columns="table")
    assert frame.loc[(cohort, row)].tolist() == frame.loc[(cohort, "slpd/vit_wsi")].tolist()
    of_table_2 = pd.read_csv(tables.PUBLISHED).query("table == 2 and accuracy_sd == accuracy_sd")
    assert sorted(zip(of_table_2["cohort"], of_table_2["row"], strict=True)) == [
        ("tcga_brca", "m2/vit_wsi"),
        ("tcga_nsclc", "m4/vit_wsi"),
    ]


def test_the_papers_settings_make_every_row_of_its_tables():
    overlay = yaml.safe_load((ROOT / "cohorts" / "paper.yaml").read_text())
    published = pd.read_csv(tables.PUBLISHED)
    trained = {
        f"{name}/{classifier}" for name, names in overlay["evaluate"]["classifiers"].items() for classifier in names
    }
    named = {
        name: config.CohortTableConfig(**table).rows_by_label for name, table in overlay["report"]["tables"].items()
    }
    assert {name: len(rows) for name, rows in named.items()} == {"table1": 13, "table2": 11}
    for rows in named.values():
        assert set(rows.values()) <= trained
        for cohort in ("tcga_nsclc", "tcga_brca"):
            assert set(rows.values()) <= set(published[published["cohort"] == cohort]["row"])


def test_a_table_with_rows_of_an_earlier_version_is_refused(tmp_path):
    table = result_table({"patch_tokens/mil": (0.7, 0.8)}).assign(row="patch/mil")
    path = write_results(tmp_path / "table.parquet", table)
    with pytest.raises(ValueError, match=r"table\.parquet: rows patch/mil .* run cohort nsclc again"):
        tables.join_cohorts({"nsclc": path}, ["patch_tokens/mil"])


FOLLOW_UP = make_endpoint("survival")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Plant published numbers of two tasks of a cohort."""
    path = tmp_path / "published.csv"
    path.write_text(
        "cohort,task,row,accuracy,accuracy_sd,auc,auc_sd,c_index,c_index_sd,table\n"
        "c,subtype,slpd/mil,.8,.01,.9,.02,,,1\n"
        "c,os,slpd/mil,,,,,.6,.05,1\n"
    )
    monkeypatch.setattr(tables, "PUBLISHED", path)
    monkeypatch.setitem(protocol.PAPER_SPLITS, "c", "their splits")


def write_survival(path):
    """Write the result table of a survival task."""
    table = result_table({"slpd/mil": (0.7, 0.8)}).drop(columns=["accuracy_mean", "accuracy_sd", "auc_mean", "auc_sd"])
    table = table.assign(c_index_mean=0.65, c_index_sd=0.04, mean_auc_mean=0.7, mean_auc_sd=0.1)
    artifacts.write_table(path, "results", table, artifacts.provenance("report", 1, {}) | FOLLOW_UP.meta)
    return path


def test_tasks_of_different_kinds_have_columns_and_published_numbers_of_their_own(tmp_path, published):
    classes = write_results(tmp_path / "a.parquet", result_table({"slpd/mil": (0.7, 0.8)}))
    paths = {"c/subtype": classes, "c/os": write_survival(tmp_path / "b.parquet"), "c/her2": classes}
    table = tables.format_rows(tables.join_cohorts(paths, ["slpd/mil"]))
    assert table.groups == [("c/subtype", 4), ("c/os", 4), ("c/her2", 2)]
    assert dict(zip(table.columns[4:8], table.lines[0][1][4:8], strict=True)) == {
        "C-index": ".650±.040",
        "Mean AUC": ".700±.100",
        "C-index, paper": ".600±.050",
        "Mean AUC, paper": "–",
    }
    assert table.lines[0][1][2:4] == [".800±.010", ".900±.020"]


def test_published_numbers_bear_no_mark(tmp_path, published):
    partial = result_table({"slpd/mil": (0.7, 0.8)}).assign(folds=10, partial_folds=3)
    table = tables.format_rows(tables.join_cohorts({"c": write_results(tmp_path / "a.parquet", partial)}, ["slpd/mil"]))
    assert table.lines[0][1] == [".700±.010†", ".800±.010†", ".800±.010", ".900±.020"]


@pytest.mark.parametrize("name", ["c", "c/label"])
def test_a_task_without_a_name_of_its_own_has_the_published_numbers_of_its_kind(tmp_path, published, name):
    classes, survival = (
        write_results(tmp_path / "a.parquet", result_table(FIRST)),
        write_survival(tmp_path / "b.parquet"),
    )
    frame = tables.join_cohorts({name: classes}, ["slpd/mil"]).frame
    assert frame[["paper_accuracy", "paper_auc"]].to_numpy().tolist() == [[0.8, 0.9]]
    assert tables.join_cohorts({name: survival}, ["slpd/mil"]).frame["paper_c_index"].tolist() == [0.6]


def test_a_table_of_no_kind_is_of_an_earlier_version(tmp_path):
    artifacts.write_table(tmp_path / "t.parquet", "results", result_table(FIRST), artifacts.provenance("report", 1, {}))
    with pytest.raises(ValueError, match=r"t\.parquet: was made by an earlier version; run cohort nsclc again"):
        tables.join_cohorts({"nsclc": tmp_path / "t.parquet"}, ["slpd/mil"])
