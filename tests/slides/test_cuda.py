"""Where there is a GPU, patches are encoded there as on the CPU."""

import numpy as np
import pytest
import timm
import torch

from slpd_core.encoders import vit_inference
from slpd_core.slides import tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
META = {"mean": (0.6, 0.5, 0.7), "std": (0.2, 0.25, 0.3), "pooling": "cls"}


def patch_encoder(precision, device, batch_size):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval().requires_grad_(False)
    frozen = vit_inference.optimize_for_inference(model, **META, precision=precision, device=device)
    return tokenizer.RegionTokenizer(frozen, 64, 64, device, batch_size)


@pytest.fixture
def regions():
    return list(np.random.default_rng(0).integers(0, 256, (5, 256, 256, 3), np.uint8))


@pytest.mark.parametrize(("precision", "most"), [("fp32", 5e-4), ("bf16", 3e-2), ("fp16", 1e-2)])
def test_a_gpu_encodes_regions_in_their_order_as_the_cpu_does(regions, precision, most):
    wanted = list(patch_encoder("fp32", "cpu", 8)(regions))
    found = list(patch_encoder(precision, "cuda", 8)(iter(regions)))
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == np.float16
        assert np.linalg.norm(mine - theirs.astype(float)) < most * np.linalg.norm(theirs.astype(float))


def test_the_batch_fits_half_of_the_free_memory(regions):
    encode = patch_encoder("bf16", "cuda", tokenizer.TRIAL_BATCH_SIZE)
    encode.batch_size = tokenizer.choose_batch_size("auto", encode)
    assert encode.batch_size > tokenizer.TRIAL_BATCH_SIZE
    torch.cuda.reset_peak_memory_stats()
    encode.encode(torch.zeros((encode.batch_size, 64, 64, 3), dtype=torch.uint8, device="cuda"))
    assert torch.cuda.max_memory_allocated() < torch.cuda.get_device_properties(0).total_memory / 2
