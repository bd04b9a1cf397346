"""Every region gets its embedding, in the order of the ledger, whatever the batch."""

import numpy as np
import pytest
import torch

from slpd_core import config, store
from slpd_core.pretraining import embed, region_encoder


@pytest.fixture
def run(on_disk, tmp_path):
    """Run the stage on a cohort with a fixed encoder; gives the table and its metadata."""
    torch.manual_seed(0)
    encoder = region_encoder.RegionEncoder(8, 24, 2, 2, 3)
    meta = store.provenance("pretrain", 1, {}, "f")
    region_encoder.save(tmp_path / "encoder.safetensors", encoder, meta)

    def run(cohort, batch_size):
        ledger, tokens = on_disk(cohort)
        embed.run(
            ledger_path=ledger,
            tokens_dir=tokens,
            encoder_path=tmp_path / "encoder.safetensors",
            out_path=tmp_path / "embed.parquet",
            section=config.Embed(batch_size=batch_size),
            device="cpu",
        )
        return encoder.eval(), *store.read_table(tmp_path / "embed.parquet", "embed")

    return run


def test_each_region_is_embedded_whole(run, make_cohort):
    cohort = make_cohort(3, 0, 4)
    encoder, table, meta = run(cohort, 2)
    assert table["slide_id"].tolist() == ["s0"] * 3 + ["s2"] * 4
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(), cohort.coords)
    with torch.no_grad():
        alone = [encoder(tokens.float().view(1, 4, 4, 8))[0].numpy() for tokens in cohort.tokens]
    np.testing.assert_allclose(np.stack(table["embedding"].to_list()), alone, atol=1e-5)
    assert meta["embed_dim"] == "24"


def test_the_batch_size_does_not_show(run, make_cohort):
    cohort = make_cohort(5, 4)
    one, other = (np.stack(run(cohort, size)[1]["embedding"].to_list()) for size in (1, 64))
    np.testing.assert_allclose(one, other, atol=1e-5)
