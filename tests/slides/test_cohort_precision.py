"""The precision of a cohort is chosen once, whoever is first, and kept wherever its jobs run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.slides import cohort_precision

ENCODER = {"fingerprint": "0123456789abcdef", "token_dim": 64, "source": "random", "name": "test_vit"}
ENCODER |= {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def resolve(tmp_path, monkeypatch):
    """Resolve "auto" in a job on a machine that would choose a precision."""

    def resolve(machine, *, asked="auto", encoder=ENCODER, state=tmp_path / "state"):
        monkeypatch.setattr(
            cohort_precision, "choose_precision", lambda asked, *_: machine if asked == "auto" else asked
        )
        return cohort_precision.resolve_cohort_precision(
            asked, device="cpu", encoder_meta=encoder, state_dir=state, encoded_dir=tmp_path / "encoded"
        )

    return resolve


@pytest.fixture
def encode(tmp_path):
    """Write the encoded regions of a slide."""

    def encode(name, precision, count=1, encoder=ENCODER):
        info = artifacts.SlideInfo(name, artifacts.OK, "", 8000, 6000, 0.5, "sheet")
        coords = np.zeros((count, 2), np.int64)
        regions = artifacts.Regions(info, coords, np.ones(count, np.float32), 4096, 4096, 0.5)
        meta = artifacts.provenance("tokens", 1, {}, name) | {"precision": precision}
        meta |= cohort_precision.format_encoder_meta(encoder)
        artifacts.write_regions(tmp_path / "encoded" / f"{name}.h5", regions, meta)

    return encode


def test_the_first_choice_stays_on_another_machine(resolve):
    assert resolve("bf16") == "bf16"
    assert resolve("fp32") == "bf16"


def test_another_patch_encoder_has_a_choice_of_its_own(resolve):
    resolve("bf16")
    assert resolve("fp32", encoder=ENCODER | {"fingerprint": "another0"}) == "fp32"


def test_a_precision_asked_for_is_neither_recorded_nor_overruled(resolve, tmp_path):
    assert resolve("bf16", asked="fp32") == "fp32"
    assert not (tmp_path / "state").exists()
    resolve("bf16")
    assert resolve("fp32", asked="fp32") == "fp32"
    assert resolve("fp32") == "bf16"


def test_without_a_folder_each_call_chooses(resolve):
    assert resolve("bf16", state=None) == "bf16"
    assert resolve("fp32", state=None) == "fp32"


def test_tokens_that_are_there_decide_where_the_record_is_missing(resolve, encode):
    encode("a", "bf16")
    for name in "bc":
        encode(name, "fp32")
    for name in "def":
        encode(name, "bf16", count=0)
        encode(f"{name}-other", "bf16", encoder=ENCODER | {"name": "another"})
    assert resolve("bf16") == "fp32"


def test_a_broken_file_decides_nothing(resolve, encode, tmp_path):
    encode("a", "fp32")
    (tmp_path / "encoded" / "b.h5").write_bytes(b"broken")
    assert resolve("bf16") == "fp32"


@pytest.mark.parametrize("links", [True, False])
def test_of_jobs_that_begin_together_one_decides(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    record = tmp_path / "state" / "0.precision"
    with ThreadPoolExecutor(8) as jobs:
        list(jobs.map(cohort_precision._write_first, [record] * 8, ["bf16", "fp32"] * 4))
    assert record.read_text() in ("bf16\n", "fp32\n")
    assert [path.name for path in record.parent.iterdir()] == ["0.precision"]
    if links:
        before = record.read_text()
        cohort_precision._write_first(record, "fp16")
        assert record.read_text() == before


def test_a_record_of_no_precision_is_refused(resolve, tmp_path):
    resolve("bf16")
    (record,) = (tmp_path / "state").iterdir()
    record.write_text("double\n")
    with pytest.raises(ValueError, match=r"01234567\.precision: 'double' is no precision; write fp32, bf16, fp16 into"):
        resolve("bf16")
