"""Every region gets its embedding, in the order of the ledger, whatever the batch."""

import numpy as np
import pytest
import torch

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining import embed


@pytest.fixture
def run(on_disk, tmp_path):
    """Run the stage on a cohort with a fixed encoder; gives the table and its metadata."""
    torch.manual_seed(0)
    encoder = region_encoder.RegionEncoder(8, 24, 2, 2, 3)

    def save(trained_on, ledger=""):
        meta = artifacts.provenance("pretrain", 1, {}, trained_on) | {
            "remarks": "It is DINO.\nTwice.",
            "ledger": ledger,
        }
        region_encoder.write_region_encoder(tmp_path / "encoder.safetensors", encoder, meta)

    def run(cohort, batch_size, attention=False, trained_on="f", admitted="f", of_ledger=""):
        save(trained_on, of_ledger)
        ledger, tokens = on_disk(cohort)
        slides, _ = artifacts.read_table(ledger, "ledger")
        artifacts.write_table(ledger, "ledger", slides, artifacts.provenance("ledger", 1, {}, admitted))
        embed.run(
            ledger_path=ledger,
            cohort_ledger_path=ledger,
            tokens_dir=tokens,
            encoder_path=tmp_path / "encoder.safetensors",
            out_path=tmp_path / "embed.parquet",
            section=config.EmbedConfig(batch_size=batch_size, attention=attention),
            device="cpu",
        )
        return encoder.eval(), *artifacts.read_table(tmp_path / "embed.parquet", "embed")

    save("f")
    run.encoder = encoder
    return run


def test_each_region_is_embedded_whole(run, make_cohort):
    cohort = make_cohort(3, 0, 4)
    encoder, table, meta = run(cohort, 2)
    assert table["slide_id"].tolist() == ["s0"] * 3 + ["s2"] * 4
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(), cohort.coords)
    with torch.no_grad():
        alone = [encoder(tokens.float()[None])[0].numpy() for tokens in cohort.tokens]
    np.testing.assert_allclose(np.stack(table["embedding"].to_list()), alone, atol=1e-5)
    assert (meta["embed_dim"], meta["remarks"]) == ("24", "It is DINO.\nTwice.")


def test_the_batch_size_does_not_show(run, make_cohort):
    cohort = make_cohort(5, 4)
    one, other = (np.stack(run(cohort, size)[1]["embedding"].to_list()) for size in (1, "auto"))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_attention_of_cls_comes_along_if_asked_for(run, make_cohort):
    """It is what the last block of the whole encoder, written out, gives to each token, the mean of the heads."""
    cohort = make_cohort(3, 4)
    encoder, table, _ = run(cohort, 2, attention=True)
    _, plain, _ = run(cohort, 2)
    np.testing.assert_array_equal(np.stack(table["embedding"].to_list()), np.stack(plain["embedding"].to_list()))
    assert "attention" not in plain
    with torch.no_grad():
        x = encoder.phi(cohort.tokens.float().flatten(1, 2))
        x = torch.cat([encoder.cls_token.expand(7, -1, -1), x], 1) + encoder.interpolate_positions(4, 4)
        first, last = encoder.blocks
        x = last.norm1(first(x))
        q, k, _ = last.attn.qkv(x).chunk(3, -1)
        heads = [(q[:, :, h : h + 12] @ k[:, :, h : h + 12].mT / 12**0.5).softmax(-1)[:, 0, 1:] for h in (0, 12)]
    found = np.stack(table["attention"].to_list())
    np.testing.assert_allclose(found, torch.stack(heads).mean(0), atol=1e-6)
    assert (found.sum(1) < 1).all()


def test_one_slide_is_in_memory_at_a_time(run, make_cohort, monkeypatch):
    """Every slide is read when its turn comes, and gives what the whole cohort at once gives."""
    cohort, shapes, embed_regions = make_cohort(3, 5, 4), [], embed.embed_regions

    def noted(encoder, tokens, *rest):
        shapes.append(tuple(tokens.shape))
        return embed_regions(encoder, tokens, *rest)

    monkeypatch.setattr(embed, "embed_regions", noted)
    encoder, table, _ = run(cohort, 64)
    assert shapes == [(3, 4, 4, 8), (5, 4, 4, 8), (4, 4, 4, 8)]
    whole = embed_regions(encoder, cohort.tokens, "cpu")
    np.testing.assert_allclose(np.stack(table["embedding"].to_list()), whole, atol=1e-6)


def test_a_slide_that_is_not_the_ledgers_is_refused(run, make_cohort, tmp_path):
    run(make_cohort(5, 5), 4)
    ledger, tokens = tmp_path / "ledger.parquet", tmp_path / "tokens"
    (tokens / "s1.h5").write_bytes((tokens / "s0.h5").read_bytes())
    with pytest.raises(ValueError, match=r"s1\.h5: not the tokens the ledger admitted; run snakemake again"):
        embed.run(
            ledger_path=ledger,
            cohort_ledger_path=ledger,
            tokens_dir=tokens,
            encoder_path=tmp_path / "encoder.safetensors",
            out_path=tmp_path / "embed.parquet",
            section=config.EmbedConfig(batch_size=4, attention=False),
            device="cpu",
        )


@pytest.mark.parametrize("what", ["trained_on", "admitted"])
def test_embeddings_are_known_by_their_encoder_and_the_ledger(run, make_cohort, what):
    one, again, other = (run(make_cohort(2), 2, **{what: name})[2]["fingerprint"] for name in ("f", "f", "g"))
    assert one == again != other


def test_embeddings_that_are_not_finite_are_not_written(run, make_cohort, tmp_path):
    with torch.no_grad():
        run.encoder.cls_token[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"slide s0: embeddings not finite; .*encoder\.safetensors"):
        run(make_cohort(2), 2)
    assert not (tmp_path / "embed.parquet").exists()


def test_the_encoder_of_another_cohort_is_refused(run, make_cohort, tmp_path):
    """It has the same run's name, and lies where this cohort's should."""
    ledger = artifacts.provenance("ledger", 1, {}, "f")["fingerprint"]
    _, _, meta = run(make_cohort(2), 2, of_ledger=ledger)
    assert meta["ledger"] == ledger
    with pytest.raises(ValueError, match=r"encoder\.safetensors: was made from another ledger: .*delete the file"):
        run(make_cohort(2), 2, of_ledger="that of another")


@pytest.mark.parametrize("attention", [False, True])
def test_a_cohort_without_a_usable_slide_has_no_embeddings(run, make_cohort, attention):
    _, table, meta = run(make_cohort(0, 0), "auto", attention=attention)
    assert table.empty
    assert meta["embed_dim"] == "24"
