"""Encoders and splits are recognized by their content, not by the names of their files."""

import json

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.evaluation import imported_splits
from slpd_core.report import protocol

SPLITS = ({"train": ["a", "b"], "val": ["c"], "test": ["d"]}, {"train": ["d", "c"], "val": ["b"], "test": ["a"]})


def write(folder, splits):
    """Write splits as HIPT publishes them; return their files."""
    folder.mkdir()
    for fold, parts in enumerate(splits):
        rows = [f"{row},{','.join(ids[row] if row < len(ids) else '' for ids in parts.values())}" for row in range(2)]
        (folder / f"splits_{fold}.csv").write_text("\n".join([",train,val,test", *rows]))
    return sorted(folder.iterdir())


def test_published_splits_are_known_by_their_slides(tmp_path, monkeypatch):
    """The order of rows and extensions do not matter; another part, fold or slide makes other splits."""
    lines = [f"{k} {part} {one}" for k, split in enumerate(SPLITS) for part, ids in split.items() for one in ids]
    monkeypatch.setattr(imported_splits, "PUBLISHED_SPLITS", {artifacts.fingerprint(*sorted(lines)): "theirs"})
    first, second = SPLITS
    same = {"train": ["b.svs", "a.svs"], "val": ["c.svs"], "test": ["d.svs"]}
    moved = {"train": ["a", "c"], "val": ["b"], "test": ["d"]}
    cases = {"as they are": (SPLITS, "theirs"), "other order": ((same, second), "theirs")}
    cases |= {
        "moved": ((moved, second), ""),
        "swapped": ((second, first), ""),
        "fewer": ((first,), ""),
        "none": ((), ""),
    }
    for name, (splits, expected) in cases.items():
        slides = str(len({one.removesuffix(".svs") for split in splits for ids in split.values() for one in ids}))
        meta = imported_splits.recognize_splits(write(tmp_path / name, splits))
        assert meta == {"published_splits": expected, "n_split_slides": slides}, name


META = {"encoder_source": "hipt", "encoder_name": "vit_small_patch16_224"}
IMAGENET = "mean 0.485 0.456 0.406, std 0.229 0.224 0.225"


@pytest.mark.parametrize(
    ("changes", "level", "papers"),
    [
        ({}, "region", True),
        ({"encoder_normalization": "mean 0.5 0.5 0.5, std 0.5 0.5 0.5"}, "patch", False),
        ({"encoder_source": "random"}, "region", False),
        ({"encoder_source": "hipt, another file"}, "region", False),
        ({"encoder_name": "vit_tiny_patch16_224"}, "region", False),
    ],
)
def test_an_encoder_is_the_papers_if_all_of_it_is(changes, level, papers):
    encoder = protocol.describe_encoder(META | {"encoder_normalization": IMAGENET, "level": level} | changes)
    assert (encoder == protocol.PAPER_ENCODER) is papers
    note = protocol.compare_with_paper("tcga_brca", [encoder], ["HIPT's ten splits of TCGA-BRCA"])
    assert note.endswith("The paper's are of the same.") is papers
    assert ("may come from that alone" in note) is not papers


def test_colors_come_from_no_encoder():
    assert protocol.describe_encoder(META | {"encoder_normalization": IMAGENET, "level": "color"}) == ""


@pytest.mark.parametrize(
    ("changes", "published", "expected"),
    [
        ({}, "", "6 folds drawn here, grouped by patient"),
        ({"n_repeats": 2, "group_by": "site"}, "", "6 folds drawn here, grouped by site, 2 partitions"),
        ({"train_fraction": 0.25}, "", "6 folds drawn here, grouped by patient, 25% of the training part used"),
        ({"splits_dir": "folder"}, "", "6 imported splits"),
        ({"splits_dir": "folder"}, "HIPT's ten splits of TCGA-BRCA", "HIPT's ten splits of TCGA-BRCA"),
    ],
)
def test_folds_are_described_by_how_they_came_to_be(settings, changes, published, expected):
    section = settings.folds.model_dump() | changes
    meta = {"section": json.dumps(section), "published_splits": published, "n_split_slides": "12"}
    folds = pd.DataFrame({"fold": np.repeat(range(6), 12), "slide_id": [f"s{n}" for n in range(12)] * 6})
    assert protocol.describe_folds(folds, meta) == expected
    if section["splits_dir"]:
        assert protocol.describe_folds(folds[folds["slide_id"] != "s3"], meta) == f"{expected}, 11 of their 12 slides"
