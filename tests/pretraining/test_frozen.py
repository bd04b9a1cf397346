"""A published region encoder as a run of its own: taken as it is, not trained, and whole for all later stages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining import embed, gallery, pretrain
from slpd_core.wsi.region_reader import iter_region_pixels
from tests.fixtures.region_encoder import embed_plainly, save_published

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(3)
    encoder = region_encoder.RegionEncoder(384, 192, 6, 6, 14)
    with torch.no_grad():
        encoder.pos_embed.mul_(20)  # positions that tell in the embedding
    return encoder.eval()


@pytest.fixture
def cohort(make_cohort):
    """Two slides of regions of the paper's size, 16 x 16 tokens of HIPT's patch encoder."""
    small = make_cohort(3, 4)
    tokens = np.random.default_rng(0).normal(size=(7, 16, 16, 384)).astype(np.float16)
    return replace(small, tokens=torch.from_numpy(tokens))


def load(**pretrain_settings):
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["pretrain"] |= {"n_prototypes": 2} | pretrain_settings
    values["evaluate"]["classifiers"] = {"patch_tokens": ["knn"]}
    return config.load(values).pretrain


@pytest.fixture
def run(on_disk, cohort, published, tmp_path):
    """Run pretrain and embed on the checkpoint; gives the folder."""
    ledger, tokens = on_disk(cohort)
    weights = save_published(published, tmp_path / "vit4k_xs_dino.pth")
    section = load(runs={"hipt": {"init_from": str(weights), "epochs": 0}}).run("hipt")
    spec = pretrain.RunSpec(
        ledger_path=ledger,
        tokens_dir=tokens,
        checkpoint_path=tmp_path / "checkpoint.pt",
        section=section.model_copy(update={"out_dim": 64, "hidden_dim": 32, "bottleneck_dim": 16}),
        seed=1,
        device="cpu",
    )
    paths = {
        name: tmp_path / name for name in ("encoder.safetensors", "history.parquet", "prototypes.h5", "monitored.h5")
    }
    pretrain.run(spec, **{f"{path.stem}_path": path for path in paths.values()})
    embed.run(
        ledger_path=ledger,
        cohort_ledger_path=ledger,
        tokens_dir=tokens,
        encoder_path=tmp_path / "encoder.safetensors",
        out_path=tmp_path / "embed.parquet",
        section=config.EmbedConfig(batch_size=2, attention=False),
        device="cpu",
    )
    return tmp_path


def test_its_embeddings_are_those_of_the_checkpoint(run, published, cohort):
    table, meta = artifacts.read_table(run / "embed.parquet", "embed")
    expected = embed_plainly(published.state_dict(), cohort.tokens)
    found = torch.from_numpy(np.stack(table["embedding"].to_list())).double()
    assert (found - expected).norm() < 1e-5 * expected.norm()
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(), cohort.coords)
    assert meta["remarks"] == "Nothing was trained: the encoder is that of vit4k_xs_dino.pth as it is."
    tensors, _ = artifacts.read_weights(run / "encoder.safetensors")
    for name, tensor in published.state_dict().items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


def test_its_history_is_empty_and_what_is_monitored_is_the_start(run, published, cohort):
    history, _ = artifacts.read_table(run / "history.parquet", "history")
    assert (len(history), [*history]) == (0, ["epoch", "loss"])
    assert (run / "history.csv").read_text() == "epoch,loss\n"
    arrays, _ = artifacts.read_arrays(run / "monitored.h5", ("embeddings", "region_slide"))
    assert arrays["embeddings"].shape == (1, 7, 192)
    assert not (run / "checkpoint.pt").exists()


def test_its_prototypes_are_centers_of_its_embeddings(run):
    arrays, _ = artifacts.read_arrays(run / "prototypes.h5", ("prototypes", "region_slide", "assignment"))
    table, _ = artifacts.read_table(run / "embed.parquet", "embed")
    embeddings = np.stack(table["embedding"].to_list())
    for i, slide in enumerate(["s0", "s1"]):
        for prototype in range(2):
            members = (arrays["region_slide"] == slide) & (arrays["assignment"] == prototype)
            assert members.any()
            center = embeddings[members].mean(0)
            np.testing.assert_allclose(arrays["prototypes"][i, prototype], center, atol=1e-4)


def test_the_gallery_shows_it(run, cohort):
    for slide in cohort.slide_ids:
        coords = cohort.coords[[cohort.slide_ids[i] == slide for i in cohort.slide_of]]
        info = artifacts.SlideInfo(slide, artifacts.OK, "", 40960, 40960, 0.5, "sheet", "")
        kept = artifacts.Regions(info, coords, np.ones(len(coords), np.float32), 4096, 4096, 0.5)
        artifacts.write_regions(run / "regions" / f"{slide}.h5", kept, artifacts.provenance("regions", 1, {}))
    gallery.run(
        slide_paths={slide: run / f"{slide}.tiff" for slide in cohort.slide_ids},  # which may be gone
        embed_path=run / "embed.parquet",
        prototypes_path=run / "prototypes.h5",
        regions_dir=run / "regions",
        out_path=run / "gallery.png",
        section=config.GalleryConfig(n_slides=2),
        read_regions=iter_region_pixels,
    )
    assert (run / "gallery.png").stat().st_size


def test_one_encoder_is_enough_for_all_folds():
    section = load(train_on="train_fold", runs={"hipt": {"init_from": "h.pth", "epochs": 0}, "slpd": {}})
    assert [section.run(name).train_on for name in ("hipt", "slpd")] == ["all", "train_fold"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epochs": 0}, "pretrain.runs.x.epochs: 0 trains nothing; name the encoder to take as it is in init_from"),
        (
            {"epochs": 0, "init_from": "h.pth", "cluster_space": "bottleneck"},
            "pretrain.runs.x.cluster_space: bottleneck",
        ),
        ({"epochs": 0, "init_from": "h.pth", "preset": "authors_code"}, "pretrain.runs.x.cluster_space: bottleneck"),
        ({"epochs": -1}, "pretrain.runs.x.epochs: Input should be greater than or equal to 0"),
    ],
)
def test_what_cannot_be_taken_as_it_is_says_so(overrides, words):
    with pytest.raises(ValueError, match="settings:") as error:
        load(runs={"x": overrides})
    assert words in str(error.value)


def test_the_patch_encoder_is_trained_for_an_epoch_at_least():
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["patch_encoder"]["dino"]["epochs"] = 0
    with pytest.raises(ValueError, match=r"patch_encoder\.dino\.epochs: Input should be greater than 0"):
        config.load(values)
