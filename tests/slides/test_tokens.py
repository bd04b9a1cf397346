"""Tokens are the patches' own, in row-major order, and a slide that breaks leaves none."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from slpd_core import artifacts, config
from slpd_core.encoders.patch_encoder_file import read_patch_encoder
from slpd_core.pretraining import patch_encoder
from slpd_core.slides import encoding, imported_tokens, patch_pixels, slide_stains, tokenizer, tokens
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.region_reader import RegionReader
from slpd_core.wsi.writer import write_slide

META = artifacts.provenance("regions", 1, {}, "f")


@pytest.fixture
def weights(tmp_path, settings):
    """A tiny encoder for patches of 64 px."""
    section = settings.patch_encoder.cohort_encoder.model_copy(
        update={"source": "random", "name": "test_vit", "patch_px": 64}
    )
    patch_encoder.run(weights_path=tmp_path / "w.safetensors", section=section, seed=1)
    return tmp_path / "w.safetensors"


@pytest.fixture
def slide(tmp_path):
    """A slide of noise, so that no two patches are alike."""
    coarse = np.random.default_rng(0).integers(60, 240, (70, 80, 3), dtype=np.uint8)
    write_slide(tmp_path / "s.tiff", coarse.repeat(8, 0).repeat(8, 1), 0.5)
    return tmp_path / "s.tiff"


@pytest.fixture
def encode(tmp_path, weights, settings):
    """Run the stage on regions of 256 px at the given corners; gives what it wrote."""

    def encode(
        path,
        corners,
        status=artifacts.OK,
        size_px=256,
        quarantine=(SlideError,),
        cache=None,
        name="s",
        state=None,
        device="cpu",
        threads=1,
        **changed,
    ):
        info = artifacts.SlideInfo(name, status, "", 640, 560, 0.5, "sheet", "")
        coords = np.array(corners, np.int64).reshape(-1, 2)
        found = artifacts.Regions(info, coords, np.ones(len(coords), np.float32), size_px, size_px, 0.5)
        artifacts.write_regions(tmp_path / "r.h5", found, META)
        section = settings.tokens.encoding.model_copy(update={"precision": "fp32"} | changed)
        paths = {"slide_paths": [path], "regions_paths": [tmp_path / "r.h5"], "weights_path": weights}
        paths |= {"tokens_paths": [tmp_path / "t.h5"], "encoded_paths": [tmp_path / "e.h5"], "cache_dir": cache}
        tokens.run(**paths, section=section, device=device, threads=threads, quarantine=quarantine, state_dir=state)
        return artifacts.read_tokens(tmp_path / "t.h5")

    return encode


def test_a_token_is_its_patch_encoded_alone(encode, slide, weights):
    corners = [(0, 0), (256, 64), (300, 200)]
    found, meta = encode(slide, corners)
    model, _ = read_patch_encoder(weights)
    assert found.tokens.shape == (3, 16, 64)
    np.testing.assert_array_equal(found.coords, corners)
    with Slide(slide) as opened, torch.inference_mode():
        for region, patch in ((0, 0), (1, 1), (1, 4), (2, 15)):
            (x, y), (row, column) = corners[region], divmod(patch, 4)
            pixels = opened.read((x + 64 * column, y + 64 * row), (64, 64), 0.5)
            normalised = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
            np.testing.assert_allclose(found.tokens[region, patch], model(normalised)[0], atol=3e-3)
            np.testing.assert_allclose(found.mean_color[region, patch], pixels.mean((0, 1)), atol=0.1)
    assert meta["precision"] == "fp32"
    assert (meta["encoder_source"], meta["encoder_name"]) == ("random", "test_vit")
    assert meta["encoder_normalization"] == "mean 0.5 0.5 0.5, std 0.5 0.5 0.5"


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_stains_are_normalized_before_a_patch_is_encoded_and_not_in_its_color(encode, slide, weights, method):
    plain, plain_meta = encode(slide, [(0, 0), (256, 64)])
    found, meta = encode(slide, [(0, 0), (256, 64)], stain_normalization=method)
    assert "stain_normalization" not in plain_meta["section"]
    assert f'"stain_normalization": "{method}"' in meta["section"]
    assert meta["fingerprint"] != plain_meta["fingerprint"]
    np.testing.assert_array_equal(found.mean_color, plain.mean_color)
    regions, _ = artifacts.read_regions(weights.parent / "r.h5")
    reader = RegionReader(slide, regions)
    normalized = slide_stains.SlideStains(method).normalize(reader, reader.read(1))
    model, _ = read_patch_encoder(weights)
    pixels = torch.from_numpy(normalized[64:128, :64].copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        np.testing.assert_allclose(found.tokens[1, 4], model((pixels / 255 - 0.5) / 0.5)[0], atol=3e-3)
    assert np.abs(found.tokens - plain.tokens).max() > 0.1


WITHOUT_TIMM = """
import sys
from pathlib import Path
from slpd_core.slides import tokenizer, tokens

tokenizer.load_tokenizer(Path(sys.argv[1]), precision="fp32")
print({"timm", "torchvision"} & sys.modules.keys())
"""


def test_a_plain_vit_is_loaded_without_timm(weights):
    command = [sys.executable, "-c", WITHOUT_TIMM, str(weights)]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_weights_without_the_description_of_a_plain_vit_give_the_same_tokens(encode, slide, weights):
    plain, _ = encode(slide, [(0, 0)])
    tensors, meta = artifacts.read_weights(weights)
    assert meta.pop("plain_vit")
    artifacts.write_weights(weights, tensors, meta)
    by_timm, _ = encode(slide, [(0, 0)])
    np.testing.assert_array_equal(by_timm.tokens, plain.tokens)


def test_the_batch_size_does_not_show(encode, slide):
    one, _ = encode(slide, [(0, 0)], batch_size=5)
    other, _ = encode(slide, [(0, 0)], batch_size=16)
    np.testing.assert_allclose(one.tokens, other.tokens, atol=2e-3)


@pytest.mark.parametrize("scaled", [True, False])
def test_tiles_are_decoded_as_the_setting_says(encode, slide, monkeypatch, scaled):
    seen, reader = [], encoding.RegionReader

    def record(*args, **options):
        seen.append(options)
        return reader(*args, **options)

    monkeypatch.setattr(encoding, "RegionReader", record)
    encode(slide, [(0, 0)], jpeg_scaled_decoding=scaled)
    assert [options["jpeg_scaled_decoding"] for options in seen] == [scaled]


def test_the_same_slide_gives_the_same_tokens(encode, slide):
    np.testing.assert_array_equal(encode(slide, [(0, 0)])[0].tokens, encode(slide, [(0, 0)])[0].tokens)


def test_half_precision_agrees(encode, slide):
    exact, _ = encode(slide, [(0, 0)])
    half, meta = encode(slide, [(0, 0)], precision="bf16")
    found, wanted = half.tokens[0].astype(float), exact.tokens[0].astype(float)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 0.01
    found, wanted = found - found.mean(0), wanted - wanted.mean(0)
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.median(cosines) > 0.99
    assert meta["precision"] == "bf16"


def test_auto_says_what_it_chose(encode, slide):
    _, meta = encode(slide, [(0, 0)], precision="auto")
    assert meta["precision"] in ("fp32", "bf16")


def test_auto_is_resolved_once_for_a_cohort(encode, slide, tmp_path, monkeypatch):
    _, first = encode(slide, [(0, 0)], precision="auto", state=tmp_path / "state")
    monkeypatch.setattr("slpd_core.slides.cohort_precision.choose_precision", None)
    _, second = encode(slide, [(0, 0)], precision="auto", state=tmp_path / "state", name="other")
    assert first["precision"] == second["precision"]


@pytest.mark.parametrize("status", [artifacts.OK, artifacts.QUARANTINED])
def test_no_regions_no_tokens_and_the_slide_is_not_opened(encode, tmp_path, status):
    found, _ = encode(tmp_path / "gone.svs", [], status)
    assert found.tokens.shape == (0, 16, 64)
    assert found.slide.status == status


def test_the_slide_is_recorded_with_what_its_tokens_came_from(encode, slide, weights, settings):
    found, meta = encode(slide, [(0, 0)])
    _, other = encode(slide, [(0, 0)], batch_size=5)
    section = settings.patch_encoder.cohort_encoder.model_copy(
        update={"source": "random", "name": "test_vit", "patch_px": 64}
    )
    patch_encoder.run(weights_path=weights, section=section, seed=2)
    _, reseeded = encode(slide, [(0, 0)])
    assert (found.slide.slide_id, found.slide.status, found.slide.width_px) == ("s", artifacts.OK, 640)
    assert (meta["stage"], meta["stage_version"]) == ("tokens", str(tokens.VERSION))
    assert len({meta["fingerprint"], other["fingerprint"], reseeded["fingerprint"]}) == 3


def test_the_precision_that_auto_chose_and_the_regions_are_in_the_fingerprint(settings):
    """Two machines under one setting: what one encoded in half precision the other does not take for its own."""
    section = settings.tokens.encoding.model_copy(update={"precision": "auto"}).model_dump()
    encoder = {"fingerprint": "e", "source": "random", "name": "test_vit", "mean": [0.5] * 3, "std": [0.5] * 3}
    one, other, again = (tokens.build_provenance(section, META, encoder, chosen) for chosen in ("fp32", "bf16", "fp32"))
    assert one["fingerprint"] == again["fingerprint"] != other["fingerprint"]
    assert (one["precision"], other["precision"]) == ("fp32", "bf16")
    elsewhere = tokens.build_provenance(section, META | {"fingerprint": "g"}, encoder, "fp32")
    assert elsewhere["fingerprint"] != one["fingerprint"]


def test_a_slide_whose_later_region_is_broken_keeps_none(encode, slide):
    with Slide(slide) as whole:
        tiles = whole.read((0, 0), (256, 256), 0.5)
    broken = bytearray(slide.read_bytes())
    starts = [number for number in range(len(broken) - 2) if broken[number : number + 3] == b"\xff\xd8\xff"]
    broken[starts[4] : starts[5]] = bytes(starts[5] - starts[4])  # tiles of 256 px, three a row
    slide.write_bytes(broken)
    with Slide(slide) as opened:
        np.testing.assert_array_equal(opened.read((0, 0), (256, 256), 0.5), tiles)
    found, _ = encode(slide, [(0, 0), (256, 256), (0, 256)])
    assert len(found.tokens) == len(found.coords) == 0
    assert found.slide.status == artifacts.QUARANTINED
    assert "broken tile of level 0 at x=256, y=256" in found.slide.reason


def test_a_slide_that_is_none_is_quarantined_or_stops_the_stage(encode, tmp_path):
    (tmp_path / "odd.svs").write_bytes(b"nothing")
    with pytest.raises(SlideError, match=r"odd\.svs: not a whole slide"):
        encode(tmp_path / "odd.svs", [(0, 0)], quarantine=())
    assert not (tmp_path / "t.h5").exists()
    found, _ = encode(tmp_path / "odd.svs", [(0, 0)])
    assert found.tokens.shape == (0, 16, 64)
    assert found.slide.status == artifacts.QUARANTINED
    assert "odd.svs: not a whole slide" in found.slide.reason


def test_a_file_that_cannot_be_read_fails_the_job_and_is_quarantined_on_the_last_attempt(encode, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"odd\.svs"):
        encode(tmp_path / "odd.svs", [(0, 0)])
    assert not (tmp_path / "t.h5").exists()
    found, _ = encode(tmp_path / "odd.svs", [(0, 0)], quarantine=(SlideError, OSError))
    assert found.slide.status == artifacts.QUARANTINED
    assert "odd.svs: cannot be read" in found.slide.reason


def test_a_slide_that_is_read_after_an_outage_is_tried_as_often_in_the_next(encode, slide, tmp_path):
    state, both = tmp_path / "state", (SlideError, OSError)
    for count in (1, 2, 3):
        encode(tmp_path / "gone.tiff", [(0, 0)], quarantine=both, state=state)
        assert outages.count_failures(state) == {"s": count}
    assert len(encode(slide, [(0, 0)], state=state)[0].coords) == 1
    assert outages.count_failures(state) == {"s": 3}
    encode(tmp_path / "gone.tiff", [(0, 0)], quarantine=both, state=state)
    assert outages.count_failures(state) == {"s": 4}


def test_a_full_disk_is_not_the_slides_fault(encode, slide, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer.RegionTokenizer, "encode", full)
    with pytest.raises(OSError, match="No space left"):
        encode(slide, [(0, 0)], quarantine=(SlideError, OSError))


def test_regions_that_do_not_divide_into_patches_stop_the_job(encode, slide, tmp_path):
    with pytest.raises(ValueError, match="regions of 250 px do not divide into the encoder's patches of 64 px"):
        encode(slide, [(0, 0)], size_px=250)
    assert not (tmp_path / "t.h5").exists()


def test_a_real_slide_that_breaks_on_the_way_is_quarantined(encode, real, tmp_path):
    whole = bytearray(real("cmu-1-small-region.svs").read_bytes())
    start = len(whole) // 2
    whole[start : start + 200_000] = bytes(200_000)
    (tmp_path / "broken.svs").write_bytes(whole)
    found, _ = encode(tmp_path / "broken.svs", [(x, y) for y in range(0, 2700, 256) for x in range(0, 2000, 256)])
    assert len(found.tokens) == len(found.coords) == 0
    assert found.slide.status == artifacts.QUARANTINED
    assert "broken tile of level 0" in found.slide.reason


def test_patches_are_cut_row_by_row():
    region = torch.arange(6 * 6 * 3, dtype=torch.uint8).view(6, 6, 3)
    patches = patch_pixels.cut_patches(region, 2)
    assert patches.shape == (9, 2, 2, 3)
    for number, patch in enumerate(patches):
        row, column = divmod(number, 3)
        torch.testing.assert_close(patch, region[2 * row : 2 * row + 2, 2 * column : 2 * column + 2])


def test_patches_are_resized_as_pillow_does():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = patch_pixels.resize_patches(torch.from_numpy(pixels), 28).numpy()
    wanted = [np.asarray(Image.fromarray(patch).resize((28, 28), Image.Resampling.BICUBIC)) for patch in pixels]
    assert np.abs(found.astype(int) - np.stack(wanted)).max() <= 1
    assert patch_pixels.resize_patches(torch.from_numpy(pixels), 32).numpy().tobytes() == pixels.tobytes()


class Flat(torch.nn.Module):
    """Gives the first pixels as tokens; `fits` patches fit into its memory."""

    def __init__(self, fits=1000, factor=1.0):
        super().__init__()
        self.fits, self.factor, self.tried = fits, factor, []

    def forward(self, pixels):
        self.tried.append(len(pixels))
        if len(pixels) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels.flatten(1)[:, :4].float() * self.factor


def regions_of_noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_no_batch_is_larger_than_the_batch_size():
    """On a device, which takes all patches of a region at once."""
    flat = Flat()
    tokenizer.RegionTokenizer(flat, 4, 4, "device", 5).encode(torch.zeros(8, 4, 4, 3, dtype=torch.uint8))
    assert flat.tried == [5, 3]


def test_regions_come_back_in_their_order():
    regions = regions_of_noise(3)
    found = list(tokenizer.RegionTokenizer(Flat(), 4, 4, "cpu", 5)(regions))
    assert [encoded.shape for encoded in found] == [(16, 4)] * 3
    for region, encoded in zip(regions, found, strict=True):
        patches = patch_pixels.cut_patches(torch.from_numpy(region), 4)
        np.testing.assert_array_equal(encoded, patches.flatten(1)[:, :4])


def test_what_does_not_fit_is_halved_and_nothing_is_lost(caplog):
    small, large = Flat(fits=3), Flat()
    encode = tokenizer.RegionTokenizer(small, 4, 4, "cpu", 8)
    (found,) = encode(regions_of_noise(1))
    (wanted,) = tokenizer.RegionTokenizer(large, 4, 4, "cpu", 8)(regions_of_noise(1))
    np.testing.assert_array_equal(found, wanted)
    assert encode.batch_size == 2
    assert sorted(set(small.tried)) == [2, 4, 8]
    assert small.tried.count(2) == 8
    assert "out of memory: going on with batches of 2 patches" in caplog.text


def test_a_patch_that_does_not_fit_stops_the_job():
    with pytest.raises(RuntimeError, match=r"memory does not hold .* set tokens.precision to bf16"):
        list(tokenizer.RegionTokenizer(Flat(fits=0), 4, 4, "cpu", 8)(regions_of_noise(1)))


@pytest.mark.parametrize("patch_px", [1, 3, 12])
def test_mean_colours_are_those_of_each_patch(patch_px):
    region = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    grid = 12 // patch_px
    means = patch_pixels.mean_colors(region, patch_px)
    assert (means.shape, means.dtype) == ((grid * grid, 3), np.float16)
    for number, mean in enumerate(means):
        x, y = number % grid * patch_px, number // grid * patch_px
        patch = [region[y + j, x + i].astype(float) for j in range(patch_px) for i in range(patch_px)]
        np.testing.assert_allclose(mean, sum(patch) / patch_px**2, rtol=2**-11)


@pytest.mark.parametrize("patch_px", [3, 64, 70, 210])
def test_a_region_is_copied_while_its_colours_are_computed(patch_px):
    """A part of a larger picture, as regions may be, in patches of more and of fewer rows than are copied at a time."""
    picture = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    side = 210 // patch_px * patch_px
    region, copy = picture[10 : 10 + side, 20 : 20 + side], np.zeros((side, side, 3), np.uint8)
    means = patch_pixels.mean_colors(region, patch_px, copy_to=copy)
    np.testing.assert_array_equal(copy, region)
    np.testing.assert_array_equal(means, patch_pixels.mean_colors(region, patch_px))
    grid = side // patch_px
    exact = region.reshape(grid, patch_px, grid, patch_px, 3).mean((1, 3), dtype=np.float64)
    np.testing.assert_array_equal(means, exact.reshape(-1, 3).astype(np.float16))


def test_regions_in_buffers_give_the_same_tokens_and_colours(tasks, weights, monkeypatch):
    """As for a GPU, whose buffers are pinned."""
    encoder, (slide, *_) = tokenizer.load_tokenizer(weights, precision="fp32"), tasks(broken=False)
    list(encoding.encode_slides([slide], encoder, token_dim=64))
    expected = slide.tokens_path.read_bytes()
    monkeypatch.setattr(encoder, "pinned_like", lambda region: torch.zeros(region.shape, dtype=torch.uint8))
    list(encoding.encode_slides([slide], encoder, token_dim=64, reading_threads=2))
    assert slide.tokens_path.read_bytes() == expected


def test_a_white_patch_is_white_however_large():
    assert (patch_pixels.mean_colors(np.full((2048, 2048, 3), 255, np.uint8), 1024) == 255).all()


def test_tokens_float16_cannot_hold_stop_the_job():
    with pytest.raises(RuntimeError, match="float16 cannot hold"):
        list(tokenizer.RegionTokenizer(Flat(factor=1e6), 4, 4, "cpu", 4)(regions_of_noise(1)))


def test_every_thread_has_patches_and_the_callers_threads_stay():
    flat, before = Flat(), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        list(tokenizer.RegionTokenizer(flat, 4, 4, "cpu", 8)(regions_of_noise(1)))
        assert (flat.tried, torch.get_num_threads()) == ([4] * 4, 4)
    finally:
        torch.set_num_threads(before)


def test_the_next_region_is_read_while_this_one_is_encoded(encode, slide, monkeypatch):
    events = []
    read, encode_patches = Slide.read, tokenizer.RegionTokenizer.encode
    second = threading.Event()

    def reading(self, xy, *rest):
        events.append(xy)
        if len(events) == 2:
            second.set()
        return read(self, xy, *rest)

    def encoding(self, patches):
        assert second.wait(60)
        return encode_patches(self, patches)

    monkeypatch.setattr(Slide, "read", reading)
    monkeypatch.setattr(tokenizer.RegionTokenizer, "encode", encoding)
    assert len(encode(slide, [(0, 0), (64, 0)])[0].tokens) == 2


@pytest.fixture
def tasks(tmp_path):
    """Three slides of noise with several regions each, the second broken where asked."""

    def tasks(*, broken):
        slides = []
        for seed, name in enumerate("abc"):
            pixels = np.random.default_rng(seed).integers(60, 240, (64, 128, 3), dtype=np.uint8)
            path = tmp_path / f"{name}.tiff"
            write_slide(path, pixels.repeat(8, 0).repeat(8, 1), 0.5)
            if broken and name == "b":
                os.truncate(path, path.stat().st_size // 2)
            info = artifacts.SlideInfo(name, artifacts.OK, "", 1024, 512, 0.5, "sheet")
            coords = np.array([(x, y) for y in (0, 256) for x in (0, 256, 512)], np.int64)
            regions = artifacts.Regions(info, coords, np.ones(6, np.float32), 256, 256, 0.5)
            slides.append(encoding.SlideTask(path, regions, tmp_path / f"{name}.h5", META))
        return slides

    return tasks


@pytest.mark.parametrize("threads", [1, 4])
def test_slides_encoded_together_are_as_each_encoded_alone(tasks, weights, threads):
    encoder, slides = tokenizer.load_tokenizer(weights, precision="fp32"), tasks(broken=False)
    for slide in slides:
        ((same, _),) = encoding.encode_slides([slide], encoder, token_dim=64)
        assert same is slide
    alone = [slide.tokens_path.read_bytes() for slide in slides]
    for slide in slides:
        slide.tokens_path.unlink()
    encoded = list(encoding.encode_slides(slides, encoder, token_dim=64, reading_threads=threads))
    assert [slide for slide, _ in encoded] == slides
    assert [regions for _, regions in encoded] == [slide.regions for slide in slides]
    assert [slide.tokens_path.read_bytes() for slide in slides] == alone


@pytest.mark.parametrize("threads", [1, 4])
def test_a_bad_slide_among_others_is_quarantined_alone(tasks, weights, threads):
    encoder, slides = tokenizer.load_tokenizer(weights, precision="fp32"), tasks(broken=True)
    options = {"token_dim": 64, "reading_threads": threads}
    regions = dict(encoding.encode_slides(slides, encoder, **options, quarantine=(SlideError,)))
    status = {slide.regions.slide.slide_id: kept.slide.status for slide, kept in regions.items()}
    assert status == {"a": artifacts.OK, "b": artifacts.QUARANTINED, "c": artifacts.OK}
    assert [slide.tokens_path.exists() for slide in slides] == [True, False, True]
    assert len(artifacts.read_tokens(slides[2].tokens_path)[0].tokens) == 6
    with pytest.raises(SlideError, match=r"b\.tiff"):
        list(encoding.encode_slides(slides, encoder, **options))


def test_a_job_that_fails_goes_on_where_it_was(tasks, weights, settings, tmp_path, caplog):
    """The second of three slides is broken at first, and the first one is encoded once."""
    caplog.set_level("INFO")
    regions = [tmp_path / "regions" / f"{name}.h5" for name in "abc"]
    for slide, path in zip(tasks(broken=True), regions, strict=True):
        artifacts.write_regions(path, slide.regions, META)
    whole = [tmp_path / f"{name}.h5" for name in "abc"]
    paths = {
        "slide_paths": [tmp_path / f"{name}.tiff" for name in "abc"],
        "regions_paths": regions,
        "encoded_paths": [tmp_path / "encoded" / f"{name}.h5" for name in "abc"],
        "weights_path": weights,
        "kept_dir": tmp_path / "kept",
    }
    section = settings.tokens.encoding.model_copy(update={"precision": "fp32"})
    options = {"section": section, "device": "cpu", "quarantine": ()}
    with pytest.raises(SlideError, match=r"b\.tiff"):
        tokens.run(**paths, tokens_paths=whole, **options)
    assert [path.exists() for path in whole] == [True, False, False]
    whole[0].unlink()  # as Snakemake does
    tasks(broken=False)
    tokens.run(**paths, tokens_paths=whole, **options)
    assert [record.message for record in caplog.records if "encoded by" in record.message] == [
        "a: encoded by an earlier job"
    ]
    for index, path in enumerate(whole):
        content = path.read_bytes()
        one = {name: value if name in ("weights_path", "kept_dir") else [value[index]] for name, value in paths.items()}
        tokens.run(**one | {"kept_dir": None}, tokens_paths=[path], **options)
        assert path.read_bytes() == content


@pytest.mark.parametrize(("device", "reading"), [("cpu", 1), ("cuda", 8)])
def test_all_threads_read_for_a_gpu_and_one_for_a_cpu(encode, slide, monkeypatch, device, reading):
    seen = []

    def encode_nothing(slides, _, *, reading_threads, **__):
        seen.append(reading_threads)
        yield slides[0], encoding.as_quarantined(slides[0].regions, "not read")

    monkeypatch.setattr(tokens, "load_tokenizer", lambda *_, **__: None)
    monkeypatch.setattr(tokens, "encode_slides", encode_nothing)
    encode(slide, [(0, 0)], device=device, threads=8)
    assert seen == [reading]


@pytest.mark.parametrize("ending", [".h5", ".pt"])
def test_features_that_our_encoder_extracts_on_the_corners_are_its_tokens(
    encode, slide, weights, tmp_path, settings, ending
):
    """The loop through other tools: corners of patches out, features in; the extractor is played by our own weights."""
    whole, _ = encode(slide, [(0, 0), (256, 64), (300, 200)])
    model, _ = read_patch_encoder(weights)
    regions, _ = artifacts.read_regions(tmp_path / "r.h5")
    corners = np.rint(imported_tokens.patch_corners(regions, 4)).astype(np.int64)
    with Slide(slide) as opened, torch.inference_mode():
        pixels = np.stack([opened.read(tuple(corner), (64, 64), 0.5) for corner in corners.tolist()])
        features = model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    folder = tmp_path / "features"
    folder.mkdir()
    with h5py.File(folder / "s.h5", "w") as file:
        file["coords"] = corners if ending == ".h5" else regions.coords
        file["coords"].attrs["patch_size_level0"] = 64 if ending == ".h5" else 256
        if ending == ".h5":
            file["features"] = features
            file["features"].attrs["encoder"] = "uni_v1"
    if ending == ".pt":
        torch.save(torch.from_numpy(features).reshape(3, 16, 64), folder / "s.pt")
    options = {"source": "features", "path": str(folder), "format": "trident" if ending == ".h5" else "hipt"}
    section = config.PatchEncoderConfig(
        **settings.patch_encoder.cohort_encoder.model_dump() | options | {"patch_px": 64}
    )
    patch_encoder.run(weights_path=tmp_path / "w2.safetensors", section=section, seed=1)
    paths = {"slide_paths": [slide], "regions_paths": [tmp_path / "r.h5"], "weights_path": tmp_path / "w2.safetensors"}
    paths |= {"tokens_paths": [tmp_path / "t2.h5"], "encoded_paths": [tmp_path / "e2.h5"]}
    stage = {"section": settings.tokens.encoding, "device": "cpu", "quarantine": (SlideError,)}
    tokens.run(**paths, features_paths=[folder / f"s{ending}"], **stage)
    imported, meta = artifacts.read_tokens(tmp_path / "t2.h5")
    np.testing.assert_allclose(imported.tokens.astype(float), whole.tokens.astype(float), atol=1e-3)
    np.testing.assert_allclose(imported.mean_color.astype(float), whole.mean_color.astype(float), atol=3)
    name = "uni_v1" if ending == ".h5" else section.name
    assert (meta["encoder_source"], meta["encoder_name"], meta["precision"]) == ("features", name, "fp16")
    assert (imported.slide, imported.coords.tolist()) == (whole.slide, whole.coords.tolist())

    with h5py.File(folder / "s.h5", "a") as file:
        file["coords"][0] += 2
    with pytest.raises(ValueError, match=r"^s: .*no features of 1 of \d+ \w+ corners"):
        tokens.run(**paths, features_paths=[folder / f"s{ending}"], **stage)
    tokens.run(**paths, features_paths=[None], **stage)
    lacking, _ = artifacts.read_tokens(tmp_path / "t2.h5")
    assert (lacking.slide.status, len(lacking.tokens)) == (artifacts.QUARANTINED, 0)
    assert lacking.slide.reason.startswith("s: no file of features in patch_encoder.path")


KILLED = """
import os, signal, sys
from pathlib import Path
from slpd_core import config
from slpd_core.slides import tokenizer, tokens

encode, seen = tokenizer.RegionTokenizer.encode, []

def killing(self, patches):
    seen.append(patches)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(self, patches)

tokenizer.RegionTokenizer.encode = killing
slide, regions, weights, written, section = sys.argv[1:]
tokens.run(
    slide_paths=[Path(slide)], regions_paths=[Path(regions)], weights_path=Path(weights), tokens_paths=[Path(written)],
    encoded_paths=[Path(written).with_name("e.h5")],
    section=config.TokenEncodingConfig.model_validate_json(section), device="cpu", quarantine=(),
)
"""


@pytest.mark.long
def test_a_killed_job_leaves_nothing_and_the_next_one_all(encode, slide, weights, tmp_path, settings):
    whole, _ = encode(slide, [(0, 0), (64, 0), (128, 0)])
    (tmp_path / "t.h5").unlink()
    section = settings.tokens.encoding.model_copy(update={"precision": "fp32"}).model_dump_json()
    paths = [slide, tmp_path / "r.h5", weights, tmp_path / "t.h5"]
    command = [sys.executable, "-c", KILLED, *paths, section]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "t.h5").exists()
    again, _ = encode(slide, [(0, 0), (64, 0), (128, 0)])
    np.testing.assert_array_equal(again.tokens, whole.tokens)


@pytest.mark.long
def test_a_compiled_encoder_gives_the_same(encode, slide):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    plain, _ = encode(slide, [(0, 0)])
    compiled, _ = encode(slide, [(0, 0)], compile=True)
    np.testing.assert_allclose(compiled.tokens, plain.tokens, atol=3e-3)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "many", None])
def test_a_batch_size_is_a_number_or_auto(settings, value):
    values = settings.tokens.encoding.model_dump()
    with pytest.raises(ValueError, match="give a whole number above 0, or auto"):
        config.TokenEncodingConfig(**values | {"batch_size": value})
    assert config.TokenEncodingConfig(**values | {"batch_size": "12"}).batch_size == 12
    assert config.TokenEncodingConfig(**values | {"batch_size": "auto"}).batch_size == "auto"


@pytest.fixture
def no_encoding(monkeypatch):
    """From when it is called, encoding anything fails."""

    def fail(self, patches):
        raise AssertionError("encoded once more")

    return lambda: monkeypatch.setattr(tokenizer.RegionTokenizer, "encode", fail)


def test_a_slide_that_another_cohort_has_encoded_is_copied_under_its_own_name(encode, slide, tmp_path, no_encoding):
    first, meta = encode(slide, [(0, 0), (256, 64)], cache=tmp_path / "cache")
    no_encoding()
    second, same = encode(slide, [(0, 0), (256, 64)], cache=tmp_path / "cache", name="other")
    assert (second.slide.slide_id, same) == ("other", meta)
    for name in ("tokens", "mean_color", "coords"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    with pytest.raises(AssertionError, match="encoded once more"):
        encode(slide, [(0, 0), (256, 64)], cache=tmp_path / "cache", batch_size=3)


def test_a_broken_file_in_the_cache_is_removed_and_the_slide_encoded(encode, slide, tmp_path):
    first, meta = encode(slide, [(0, 0)], cache=tmp_path / "cache")
    (cached,) = (tmp_path / "cache").iterdir()
    assert cached.name == f"{meta['fingerprint']}.h5"
    (tmp_path / "t.h5").unlink()
    os.truncate(cached, cached.stat().st_size // 2)
    again, _ = encode(slide, [(0, 0)], cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.tokens, first.tokens)
    np.testing.assert_array_equal(artifacts.read_tokens(cached)[0].tokens, first.tokens)


def test_the_cache_works_without_links(encode, slide, tmp_path, monkeypatch, no_encoding):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    first, _ = encode(slide, [(0, 0)], cache=tmp_path / "cache")
    no_encoding()
    second, _ = encode(slide, [(0, 0)], cache=tmp_path / "cache")
    np.testing.assert_array_equal(second.tokens, first.tokens)


def test_a_quarantined_slide_does_not_enter_the_cache(encode, slide, tmp_path):
    slide.write_bytes(slide.read_bytes()[:4000])
    found, _ = encode(slide, [(0, 0)], cache=tmp_path / "cache")
    assert found.slide.status == artifacts.QUARANTINED
    assert not (tmp_path / "cache").exists()


def test_finite_tokens_are_told_by_their_bits():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal([tokenizer.is_finite(every[i : i + 1]) for i in range(2**16)], np.isfinite(every))
    assert tokenizer.is_finite(np.empty((0, 4), np.float16))
