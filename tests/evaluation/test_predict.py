"""External slides get the mean of what the classifiers of the folds say, each by the features of its own encoder."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from slpd_core import artifacts
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import classifiers, networks, predict

CLASSES = Classification(("x", "y", "z"))
SIDE = 64
META = artifacts.provenance("evaluate", 1, {}) | {"ledger": "of the cohort", "bags": "slide"}


def knn(path, *votes):
    """A classifier of all that is: its three neighbours are of these classes."""
    arrays = {"means": np.eye(3, 4, dtype=np.float32), "targets": np.array(votes), "k": np.array([3])}
    classifiers.write_classifier(path, classifiers.FittedClassifier("knn", CLASSES, 4, arrays), META)
    return str(path)


def abmil(path, seed, bags="slide"):
    """An untrained ABMIL whose attention differs from region to region."""
    network = networks.build_network("abmil", 4, 3, 0.0, seed)
    network.attention.attention_c.weight.data *= 40
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    classifiers.write_classifier(path, classifiers.FittedClassifier("abmil", CLASSES, 4, arrays), META | {"bags": bags})
    return str(path)


def embed(path, slides, shift=0.0):
    """The embeddings of slides: id -> float32 (L, 4)."""
    rows = [(slide, SIDE * i, 0, row + shift) for slide, array in slides.items() for i, row in enumerate(array)]
    frame = pd.DataFrame(rows, columns=["slide_id", "x", "y", "embedding"])
    artifacts.write_table(path, "embed", frame, artifacts.provenance("embed", 1, {}) | {"embed_dim": "4"})
    return str(path)


@pytest.fixture
def slides():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(L, 4)).astype(np.float32) for name, L in (("a", 3), ("b", 5))}


@pytest.fixture
def run(tmp_path, slides):
    """Predict the slides, and one torn and one blank, by rows; gives the table."""
    status = [(name, artifacts.OK, "", len(array)) for name, array in slides.items()]
    status += [("blank", artifacts.EMPTY, "no tissue found", 0), ("torn", artifacts.QUARANTINED, "torn, twice", 0)]
    ledger = pd.DataFrame(
        [
            (name, "", state, reason, 100, 100, 0.5, "sheet", 1.0, "segmented", regions, "f", name, "")
            for name, state, reason, regions in status
        ],
        columns=[*artifacts.TABLES["ledger"]],
    )
    artifacts.write_table(tmp_path / "ledger.parquet", "ledger", ledger, artifacts.provenance("ledger", 1, {}))
    for name, array in slides.items():
        coords = np.stack([np.arange(len(array)) * SIDE, np.zeros(len(array), int)], 1)
        info = artifacts.SlideInfo(name, artifacts.OK, "", SIDE * len(array), SIDE, 0.5, "sheet", "f")
        regions = artifacts.Regions(info, coords, np.ones(len(array), np.float32), SIDE, SIDE, 0.5)
        artifacts.write_regions(tmp_path / "regions" / f"{name}.h5", regions, artifacts.provenance("regions", 1, {}))
        with artifacts.create_tokens(
            tmp_path / "tokens" / f"{name}.h5",
            regions,
            1,
            4,
            artifacts.provenance("tokens", 1, {}) | {"fingerprint": "f"},
        ) as written:
            written.tokens[:] = array[:, None]
        (tmp_path / "tissue").mkdir(exist_ok=True)
        artifacts.write_picture(tmp_path / "tissue" / f"{name}.png", Image.new("RGB", (30 * len(array), 30), "white"))

    def run(*rows):
        fields = ("features", "classifier", "models", "embeds", "tokens", "ledger")
        paths = str(tmp_path / "tokens"), str(tmp_path / "ledger.parquet")
        predict.run(
            ledger_path=tmp_path / "ledger.parquet",
            models=[dict(zip(fields, (*row, *paths), strict=True)) for row in rows],
            tissue_dir=tmp_path / "tissue",
            regions_dir=tmp_path / "regions",
            heatmaps_dir=tmp_path / "heatmaps",
            out_path=tmp_path / "predictions.csv",
            folds_path=tmp_path / "folds.parquet",
        )
        return pd.read_csv(tmp_path / "predictions.csv")

    return run


def test_the_folds_vote_and_their_spread_is_told(run, slides, tmp_path):
    votes = [knn(tmp_path / "0.safetensors", 0, 0, 1), knn(tmp_path / "1.safetensors", 1, 1, 1)]
    votes.append(knn(tmp_path / "2.safetensors", 0, 0, 0))
    table = run(("slpd", "knn", votes, [embed(tmp_path / "e.parquet", slides)] * 3)).set_index("slide_id")
    for slide in slides:
        line = table.loc[slide]
        assert (line["predicted"], line["features"], line["classifier"]) == ("x", "slpd", "knn")
        assert line["agree"] == pytest.approx(2 / 3, abs=1e-6)
        np.testing.assert_allclose(line[["p_x", "p_y", "p_z"]].astype(float), [5 / 9, 4 / 9, 0], atol=1e-6)
        assert line["sd_x"] == pytest.approx(np.std([2 / 3, 0, 1], ddof=1), abs=1e-6)
    folds, _ = artifacts.read_table(tmp_path / "folds.parquet", "external")
    assert len(folds) == len(slides) * 3
    for slide in slides:
        of_slide = folds[folds["slide_id"] == slide].sort_values("fold")
        assert of_slide["fold"].tolist() == [0, 1, 2]
        np.testing.assert_allclose(of_slide[["p_x", "p_y", "p_z"]], [[2 / 3, 1 / 3, 0], [0, 1, 0], [1, 0, 0]])


def test_slides_left_out_keep_a_line_with_the_reason(run, slides, tmp_path):
    row = ("slpd", "knn", [knn(tmp_path / "0.safetensors", 0, 0, 1)], [embed(tmp_path / "e.parquet", slides)])
    table = run(row, row).set_index("slide_id")
    assert table.index.value_counts().to_dict() == {"a": 2, "b": 2, "blank": 1, "torn": 1}
    assert table.loc["torn", ["status", "reason"]].tolist() == ["quarantined", "torn, twice"]
    assert table.loc[["blank", "torn"], "predicted"].isna().all()


def test_a_task_that_no_model_predicts_lists_the_slides(run):
    assert run()["slide_id"].tolist() == ["a", "b", "blank", "torn"]


def test_what_to_know_of_a_slide_stands_in_its_lines(run, slides, tmp_path):
    ledger, meta = artifacts.read_table(tmp_path / "ledger.parquet", "ledger")
    remarks = ledger["slide_id"].map({"a": "It is k of the cohort."}).fillna("")
    artifacts.write_table(tmp_path / "ledger.parquet", "ledger", ledger.assign(remarks=remarks), meta)
    row = ("slpd", "knn", [knn(tmp_path / "0.safetensors", 0, 0, 1)], [embed(tmp_path / "e.parquet", slides)])
    table = run(row).set_index("slide_id")["remarks"].fillna("")
    assert table.to_dict() == {"a": "It is k of the cohort.", "b": "", "blank": "", "torn": ""}


def test_one_fold_has_no_spread(run, slides, tmp_path):
    table = run(("slpd", "knn", [knn(tmp_path / "0.safetensors", 0, 0, 1)], [embed(tmp_path / "e.parquet", slides)]))
    assert table["sd_x"].isna().all()


def test_each_fold_reads_the_embeddings_of_its_own_encoder(run, slides, tmp_path):
    nets = [abmil(tmp_path / f"{fold}.safetensors", fold) for fold in range(2)]
    shifts = (0.0, 1.5)
    embeds = [embed(tmp_path / f"e{fold}.parquet", slides, shift) for fold, shift in enumerate(shifts)]
    table = run(("slpd", "abmil", nets, embeds)).set_index("slide_id")
    predictors = [
        classifiers.build_predictor(classifiers.read_classifier(tmp_path / f"{fold}.safetensors")[0])
        for fold in range(2)
    ]
    for slide, array in slides.items():
        own = [say(array + np.float32(shift))[0] for say, shift in zip(predictors, shifts, strict=True)]
        np.testing.assert_allclose(table.loc[slide, ["p_x", "p_y", "p_z"]].astype(float), np.mean(own, 0), atol=1e-5)
        swapped = [say(array + np.float32(shift))[0] for say, shift in zip(predictors, shifts[::-1], strict=True)]
        assert np.abs(np.mean(swapped, 0) - np.mean(own, 0)).max() > 1e-3


def test_attention_on_regions_is_drawn_and_on_patches_is_not(run, slides, tmp_path):
    nets = [abmil(tmp_path / "0.safetensors", 3)]
    run(
        ("slpd", "abmil", nets, [embed(tmp_path / "e.parquet", slides)]),
        ("patch_tokens", "abmil", nets, []),
        ("slpd", "knn", [knn(tmp_path / "k.safetensors", 0, 0, 1)], [str(tmp_path / "e.parquet")]),
    )
    drawn = sorted(path.relative_to(tmp_path / "heatmaps").as_posix() for path in (tmp_path / "heatmaps").rglob("*.*"))
    assert drawn == ["slpd/abmil/a.jpg", "slpd/abmil/b.jpg"]
    attention = classifiers.build_predictor(classifiers.read_classifier(tmp_path / "0.safetensors")[0])(slides["b"])[1]
    picture = np.asarray(Image.open(tmp_path / "heatmaps" / "slpd/abmil/b.jpg")).astype(int)
    row = picture[-15 - 16 - 14 - 24 - 16, 16 + 15 + 30 * np.arange(5)]  # above the scale of the colors
    reddest = (row[:, 0] - row[:, 2]).argmax()
    assert reddest == attention.argmax()


def test_a_patients_slides_are_one_bag_where_the_classifier_was_trained_on_such(run, slides, tmp_path):
    """The patient of all slides here is one."""
    nets, e = [abmil(tmp_path / "0.safetensors", 3, "patient")], [embed(tmp_path / "e.parquet", slides)]
    table = run(("slpd", "abmil", nets, e)).set_index("slide_id")
    columns = ["p_x", "p_y", "p_z"]
    assert table.loc["a", columns].tolist() == table.loc["b", columns].tolist()
    say = classifiers.build_predictor(classifiers.read_classifier(tmp_path / "0.safetensors")[0])
    both, attention = say(np.concatenate([slides["a"], slides["b"]]))
    np.testing.assert_allclose(table.loc["a", columns].astype(float), both, atol=1e-6)
    assert np.abs(say(slides["a"])[0] - both).max() > 1e-4
    bag = predict.predict_ensemble([say], [slides.__getitem__], ["a", "b"])
    of_a = attention[: len(slides["a"])]
    np.testing.assert_allclose(bag[0].attention, of_a / of_a.sum())
    assert [len(one.attention) for one in bag] == [len(array) for array in slides.values()]
    assert len([*(tmp_path / "heatmaps").rglob("*.jpg")]) == len(slides)


def test_patches_are_read_from_the_tokens(run, slides, tmp_path):
    nets = [abmil(tmp_path / "0.safetensors", 3)]
    regions = run(("slpd", "abmil", nets, [embed(tmp_path / "e.parquet", slides)]))
    patches = run(("patch_tokens", "abmil", nets, []))
    columns = ["p_x", "p_y", "p_z"]
    np.testing.assert_allclose(patches[columns], regions[columns], atol=1e-3)  # the same, in float16


def test_nothing_admitted_is_still_a_table(run, slides, tmp_path):
    ledger, meta = artifacts.read_table(tmp_path / "ledger.parquet", "ledger")
    left = ledger[ledger["status"] != artifacts.OK]
    artifacts.write_table(tmp_path / "ledger.parquet", "ledger", left, meta)
    table = run(("slpd", "knn", [knn(tmp_path / "0.safetensors", 0, 0, 1)], [embed(tmp_path / "e.parquet", slides)]))
    assert table["slide_id"].tolist() == ["blank", "torn"]
    folds, _ = artifacts.read_table(tmp_path / "folds.parquet", "external")
    assert folds.empty
    assert [name for name in folds.columns if name.startswith("p_")]
