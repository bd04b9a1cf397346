"""The tokens read are those the ledger admitted, whole, square and alike; everything else is named with the remedy."""

import errno
import math
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from slpd_core.artifacts.checked_rows import row_checksums
from slpd_core.artifacts.hdf5 import seal_h5
from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.pretraining.token_dataset import embed_regions, read_token_dataset


def rewrite(path, change):
    """Change the tokens of a file as a stage would not; its colours follow their shape."""
    with h5py.File(path, "r+") as file:
        tokens = change(file["tokens"][()])
        for name, array in {"tokens": tokens, "mean_color": np.zeros((*tokens.shape[:2], 3), np.float16)}.items():
            del file[name], file[f"{name}_xxh3"]
            file[name], file[f"{name}_xxh3"] = array, row_checksums(np.ascontiguousarray(array))
    seal_h5(path)


def test_a_cohort_comes_back_slide_after_slide(on_disk, make_cohort):
    cohort = make_cohort(5, 0, 3, 1)
    back = read_token_dataset(*on_disk(cohort))
    assert torch.equal(back.tokens, cohort.tokens)
    np.testing.assert_array_equal(back.coords, cohort.coords)
    assert (back.slide_ids, back.patient_ids) == (["s0", "s2", "s3"], ["ps0", "ps2", "ps3"])
    assert back.slide_of.tolist() == [0] * 5 + [1] * 3 + [2]


def test_a_part_of_a_cohort_is_read_alone_and_has_a_fingerprint_of_its_own(on_disk, make_cohort):
    cohort = make_cohort(5, 2, 3)
    ledger, tokens = on_disk(cohort)
    part = read_token_dataset(ledger, tokens, {"s2", "s0", "elsewhere"})
    assert part.slide_ids == ["s0", "s2"]
    assert torch.equal(part.tokens, cohort.tokens[[0, 1, 2, 3, 4, 7, 8, 9]])
    assert len({read_token_dataset(ledger, tokens, only).fingerprint for only in (None, {"s0"}, {"s1"})}) == 3


def test_a_fold_without_training_slides_is_named_with_the_remedy(on_disk, make_cohort):
    with pytest.raises(ValueError, match=r"ledger\.parquet: none of the 1 training slides of this fold .*n_folds"):
        read_token_dataset(*on_disk(make_cohort(5, 0)), {"s1"})


def test_a_disk_without_room_for_the_tokens_is_named_with_the_remedy(on_disk, make_cohort, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"tokens\.bin: no room for tokens of 0\.0 GB \(No space left.*set TMPDIR"):
        read_token_dataset(*on_disk(make_cohort(5)), None, 0, tmp_path)


def tokens_seen(rank, cohort, path):
    np.save(path, cohort.tokens.numpy())


@pytest.mark.long
def test_tokens_larger_than_memory_are_mapped_in_every_process(on_disk, make_cohort, tmp_path):
    cohort = make_cohort(5, 0, 3)
    ledger, tokens = on_disk(cohort)
    size = cohort.tokens.nbytes
    assert read_token_dataset(ledger, tokens, None, size, tmp_path).file is None
    mapped = read_token_dataset(ledger, tokens, None, size - 1, tmp_path)
    assert Path(mapped.file).stat().st_size == size
    assert torch.equal(mapped.tokens, cohort.tokens)
    torch.multiprocessing.spawn(tokens_seen, (mapped, tmp_path / "seen.npy"), nprocs=1)
    np.testing.assert_array_equal(np.load(tmp_path / "seen.npy"), cohort.tokens)


def test_a_cohort_without_tissue_is_refused(on_disk, make_cohort):
    with pytest.raises(ValueError, match=r"ledger\.parquet: no slide with status ok"):
        read_token_dataset(*on_disk(make_cohort(0, 0)))


def test_tokens_the_ledger_did_not_admit_are_refused(on_disk, make_cohort):
    ledger, tokens = on_disk(make_cohort(5, 5))
    (tokens / "s1.h5").write_bytes((tokens / "s0.h5").read_bytes())
    with pytest.raises(ValueError, match=r"s1\.h5: not the tokens the ledger admitted"):
        read_token_dataset(ledger, tokens)


def test_a_flipped_bit_of_a_token_is_named_with_its_region(on_disk, make_cohort, tmp_path):
    ledger, tokens = on_disk(make_cohort(5, 6))
    path = tokens / "s1.h5"
    with h5py.File(path) as file:
        offset, region_bytes = file["tokens"].id.get_offset(), file["tokens"][0].nbytes
    content = bytearray(path.read_bytes())
    content[offset + 4 * region_bytes + 77] ^= 1
    path.write_bytes(content)
    for memory_bytes in (math.inf, 0):  # kept in memory, and mapped
        with pytest.raises(ValueError, match=r"s1\.h5: damaged, tokens 4 does not match its checksum; delete the file"):
            read_token_dataset(ledger, tokens, None, memory_bytes, tmp_path)


def test_tokens_that_are_no_square_are_refused(on_disk, make_cohort):
    ledger, tokens = on_disk(make_cohort(5, 6))
    rewrite(tokens / "s0.h5", lambda tokens: tokens[:, :15])
    with pytest.raises(ValueError, match=r"s0\.h5: 15 tokens per region are no square grid; delete the file"):
        read_token_dataset(ledger, tokens)


def test_tokens_of_another_shape_name_both_slides(on_disk, make_cohort):
    ledger, tokens = on_disk(make_cohort(5, 6))
    rewrite(tokens / "s1.h5", lambda tokens: tokens[:, :9])
    found = r"s1\.h5: tokens \(3, 3, 8\), those of slide s0 are \(4, 4, 8\); of the one that does not fit"
    with pytest.raises(ValueError, match=found):
        read_token_dataset(ledger, tokens)


def test_each_thread_embeds_batches_of_its_own_so_their_number_does_not_show(make_cohort):
    """To the bit, and without gradients; the caller keeps its threads."""
    tokens, threads = make_cohort(9, 13).tokens, torch.get_num_threads()
    encoder, seen = RegionEncoder(8, 24, 2, 2, 4).eval(), set()

    def noted(batch):
        seen.add((torch.get_num_threads(), torch.is_inference_mode_enabled(), len(batch)))
        return encoder(batch)

    try:
        embedded = []
        for count in (1, 3):
            torch.set_num_threads(count)
            embedded.append(embed_regions(noted, tokens, "cpu"))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*embedded)
    assert seen == {(1, True, 8), (1, True, 6)}


def test_the_batch_size_of_embedding_does_not_show(make_cohort):
    tokens = make_cohort(5).tokens
    encoder = RegionEncoder(8, 24, 2, 2, 3, drop_path=0.9).eval()
    one, other = (embed_regions(encoder, tokens, "cpu", size) for size in (2, 64))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert one.shape == (5, 24)
