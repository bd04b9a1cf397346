"""The preflight names what would fail, and its forecast is what the stages then do."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from slpd_core import config
from slpd_core.config.published import published_encoders
from slpd_core.encoders import region_encoder
from slpd_core.preflight import checks, encoder_terms, forecast, outlines, preflight, slides
from slpd_core.preflight.forecast import Machine, StageForecast
from slpd_core.preflight.throughput import EncoderSpeed
from slpd_core.slides import regions, tissue
from slpd_core.slides.sheet import read_sheet
from slpd_core.wsi.writer import write_slide
from tests.shipped_config import read_shipped
from tests.workflow.planted_settings import load_settings

ROOT = Path(__file__).parents[2]
REGION_BYTES = 16 * (2 * 64 + 6)  # 16 patches of 64 px, tokens of test_vit


@pytest.fixture
def settings(tmp_path):
    """The tiny settings of the workflow's tests, changes merged over them."""

    def make(**changes) -> config.Config:
        values = read_shipped()
        for overlay in (yaml.safe_load((ROOT / "tests" / "workflow" / "tiny.yaml").read_text()), changes):
            for key, value in overlay.items():
                values[key] = values[key] | value if isinstance(value, dict) else value
        values["sheet"]["path"] = str(tmp_path / "slides.csv")
        return config.load(values)

    return make


@pytest.fixture
def cohort(tmp_path):
    """Write slides, each glass with a tissue of so many regions of 256 px side by side, and their sheet."""

    def write(counts: list[int]) -> Path:
        rows = ["slide_id,patient_id,label,path"]
        for number, count in enumerate(counts):
            pixels = np.full((512, 2048, 3), 244, np.uint8)
            pixels[256:, : 256 * count] = (200, 120, 170)
            pixels[:16, :16] -= number  # no two are one
            write_slide(tmp_path / f"{number}.tiff", pixels, 0.5)
            rows.append(f"slide-{number},patient-{number},{'ab'[2 * number // len(counts)]},{number}.tiff")
        (tmp_path / "slides.csv").write_text("\n".join(rows) + "\n")
        return tmp_path / "slides.csv"

    return write


@pytest.fixture
def probed(settings, cohort):
    """Write slides of so many regions each; returns their probes and the sample of them."""

    def probe(counts: list[int]) -> tuple[list[slides.SlideProbe], slides.CohortSample]:
        options = settings().regions.selection.model_dump()
        probes = slides.probe_slides(read_sheet(cohort(counts)), region_options=options)
        tissue_options = settings().tissue.model_dump(exclude={"masks_dir", "method"})
        return probes, slides.sample_cohort(probes, tissue_options=tissue_options, region_options=options)

    return probe


@pytest.fixture
def look(tmp_path, capsys):
    """Run the preflight; gives what it printed."""

    def run(settings, device="cpu", gpus=0, external=(), **options) -> str:
        sheets = [Path(settings.sheet.path), *external]
        results = tmp_path / "results"
        preflight.run(settings=settings, sheets=sheets, results=results, device=device, cores=2, gpus=gpus, **options)
        return capsys.readouterr().out

    return run


def test_nothing_wrong_is_ready_and_the_forecast_is_what_comes(settings, cohort, look):
    cohort([2, 4, 3, 1])
    out = look(settings(), pretrain_mb=12_345)
    assert re.search(r"\n  pretrain slpd .* 12,345 MB ", out)
    assert "4 of 4 open, at 0.5 to 0.5 um/px" in out
    assert "4 slides of 4 patients\n" in out
    assert "task label   4 slides: 2 a, 2 b" in out
    assert "slpd: 1 of 4 slides have fewer than 2 regions\n" in out
    assert "test_vit (random), tokens of 64" in out
    assert "About 10 regions, by 4 slides" in out
    assert out.endswith("Ready.\n")
    assert "FAIL" not in out
    rows = {line.split("  ")[1]: line.split() for line in out.splitlines() if line.endswith(" GB")}
    assert list(rows) == ["tissue", "tokens", "pretrain dino", "pretrain slpd", "evaluate", "all"]
    assert rows["tissue"][1] == rows["tokens"][1] == "4"
    assert rows["pretrain slpd"][2] == "1"
    assert rows["evaluate"][1] == "12"  # 6 rows of two folds


def test_regions_are_foretold_by_area(probed):
    """Of twenty slides six are looked at; each has its three regions."""
    probes, sample = probed([3] * 20)
    assert len(sample.slides) == slides.SAMPLED_SLIDES
    assert sample.expected_regions(probes) == 60
    assert sample.tissue_seconds > 0
    assert sample.read_seconds > 0


def test_the_sample_finds_what_the_stages_find(settings, probed):
    _, sample = probed([2, 5, 1, 1])
    for slide, of_slide in zip(sample.slides, sample.regions, strict=True):
        outlined, _ = tissue.segment_file(slide.slide_id, slide.path, **settings().tissue.segmentation.model_dump())
        np.testing.assert_array_equal(
            of_slide.coords, regions.select_regions(outlined, **settings().regions.selection.model_dump()).coords
        )


def test_gigabytes_are_those_of_tokens_files(probed):
    probes, sample = probed([4, 4, 0, 0])
    encoder, machine = EncoderSpeed(0.01, 64, "fp32", 16), Machine(2, 0, "cpu")
    stage = forecast.forecast_tokens("tokens", probes, sample, encoder, machine, region_px=256)
    assert stage.gigabytes == pytest.approx(8 * REGION_BYTES / 1e9)
    work = 8 * (sample.read_seconds + 16 * 0.01) + 4 * forecast.START_SECONDS
    assert stage.hours == pytest.approx(work / 3600)
    assert stage.hours_here == pytest.approx(work / 3600 / 2)


def test_a_gpu_encodes_while_the_next_region_is_read(probed):
    probes, sample = probed([4, 4, 0, 0])
    encoder, machine = EncoderSpeed(1.0, 64, "bf16", 16), Machine(8, 1, "cuda")
    stage = forecast.forecast_tokens("tokens", probes, sample, encoder, machine, region_px=256)
    assert stage.hours == pytest.approx((8 * 16 + 4 * forecast.START_SECONDS) / 3600)
    assert stage.hours_here == stage.hours


@pytest.mark.parametrize(("machine", "threads"), [(Machine(16, 1, "cuda"), 8), (Machine(16, 4, "cuda"), 4)])
def test_the_threads_of_a_job_read_for_its_gpu(probed, machine, threads):
    probes, sample = probed([4, 4, 0, 0])
    stage = forecast.forecast_tokens("t", probes, sample, EncoderSpeed(0.0, 64, "bf16", 16), machine, region_px=256)
    reading = stage.hours * 3600 - 4 * forecast.START_SECONDS
    assert reading == pytest.approx(8 * sample.read_seconds / threads)


def test_tokens_exceed_the_memory_of_a_job_or_the_scratch_folder_too(capsys):
    report = checks.PreflightReport()
    for tokens_gb in (14.0, 14.1, 1e9):
        checks.check_memory(report, tokens_gb, 14.0)
    verdicts = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["ok", "note", "FAIL"]
    assert report.failures == 1


@pytest.mark.parametrize(("jobs", "at_a_time", "here"), [(10, 4, 3.0), (2, 8, 6.0), (1, 1, 12.0), (0, 3, 12.0)])
def test_jobs_share_the_machine(jobs, at_a_time, here):
    assert StageForecast("tokens", jobs, 12.0, at_a_time, 0).hours_here == here


@pytest.mark.parametrize("on_bad_slide", ["quarantine", "stop"])
def test_a_slide_that_does_not_open_is_named(settings, cohort, look, on_bad_slide, capsys):
    path = cohort([2, 2, 2, 2])
    (path.parent / "1.tiff").write_bytes(b"torn")
    write_slide(path.parent / "2.tiff", np.full((512, 512, 3), 244, np.uint8), 3.0)
    wanted = settings(ledger={"on_bad_slide": on_bad_slide})
    if on_bad_slide == "quarantine":
        out = look(wanted)
        assert out.endswith("Ready.\n")
    else:
        with pytest.raises(ValueError, match=r"2 check\(s\) failed"):
            look(wanted)
        out = capsys.readouterr().out
    assert "2 of 4 open" in out
    assert f"{path.parent / '1.tiff'}: not a whole slide" in out
    assert "slide-2: 3 um/px" in out


def test_a_sheet_that_contradicts_a_slide_is_named(settings, cohort, look):
    path = cohort([2, 2, 2, 2])
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0] + ",mpp", rows[1] + ",0.4", *(row + "," for row in rows[2:])]) + "\n")
    out = look(settings())
    assert "note               slide-0: The sheet says 0.4 um/px, the slide itself 0.5 (tiff resolution)" in out
    assert out.count("The sheet says") == 1


def test_slides_without_a_region_would_fail(settings, cohort, look, capsys):
    cohort([0] * 4)
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings())
    assert "none in 4 slides" in capsys.readouterr().out


def test_without_a_source_the_choices_are_printed_and_the_forecast_is_made(settings, cohort, look, capsys):
    cohort([1] * 4)
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings(patch_encoder={"source": None}))
    out = capsys.readouterr().out
    assert "FAIL  weights      patch_encoder.source: null" in out
    assert all(f"source: {source}" in out for source in ("hipt", "timm", "dino", "features", "random"))
    assert re.search(r"\n  tokens +4 ", out)


def test_broken_weights_would_fail(settings, cohort, look, tmp_path, capsys):
    cohort([1] * 4)
    (tmp_path / "weights.pth").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings(patch_encoder={"source": "hipt", "weights": str(tmp_path / "weights.pth")}))
    assert f"FAIL  weights      patch_encoder.weights: {tmp_path / 'weights.pth'}" in capsys.readouterr().out


def test_features_of_another_tool_are_not_encoded(settings, cohort, look, tmp_path, capsys):
    cohort([2, 2, 2, 2])
    features = {"source": "features", "path": str(tmp_path / "theirs"), "format": "trident"}
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings(patch_encoder=features))
    assert f"FAIL  weights      patch_encoder.path: {tmp_path / 'theirs'} has no .h5" in capsys.readouterr().out
    with h5py.File(tmp_path / "theirs" / "a.h5", "w") as file:
        file["features"], file["coords"] = np.ones((2, 48), np.float32), np.zeros((2, 2), int)
    out = look(settings(patch_encoder=features))
    assert f"ok    features     {tmp_path / 'theirs'} (trident), tokens of 48" in out
    assert out.endswith("Ready.\n")


def test_license_and_scale_of_a_published_encoder_are_printed(settings, cohort, look, tmp_path, capsys):
    cohort([1] * 4)
    (tmp_path / "weights.pth").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings(patch_encoder={"source": None, "name": "h-optimus-1", "weights": str(tmp_path / "weights.pth")}))
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    printed = {topic: (verdict, text) for verdict, topic, text in filter(lambda line: len(line) == 3, lines)}
    page = "https://huggingface.co/bioptimus/H-optimus-1"
    assert printed["license"] == ("ok", f"h-optimus-1: CC-BY-NC-ND-4.0 ({page})")
    verdict, scale = printed["scale"]
    assert verdict == "note"
    assert scale.endswith("but was trained at 0.5: its tokens may tell less; set regions.target_mpp to 0.5")


def test_an_untrained_encoder_has_no_license(settings, cohort, look):
    cohort([2] * 4)
    assert "license" not in look(settings(patch_encoder={"name": "lunit-vits16", "source": "random"}))


@pytest.mark.parametrize(
    ("name", "target_mpp", "fits", "words"),
    [
        ("uni2-h", 0.5, True, "uni2-h gets patches at 0.57 um/px; trained at 0.5"),
        ("uni2-h", 1.0, False, "at 1.1 um/px (regions.target_mpp 1, 256 px resized to 224), but was trained at 0.5"),
        ("virchow2", 1.0, True, "trained at 0.25 and 0.5 and 1 and 2"),
        ("virchow2", 4.0, False, "set regions.target_mpp to 2"),
        ("kaiko-vits16", 4.0, True, "its authors name none"),
    ],
)
def test_the_scale_is_compared_with_that_of_the_training(name, target_mpp, fits, words):
    encoder = published_encoders()[name]
    said = encoder_terms.describe_scale(name, encoder, target_mpp=target_mpp, patch_px=256, input_px=224)
    assert said[0] == fits
    assert words in said[1]


def test_a_gated_encoder_says_how_to_get_access():
    terms = [
        encoder_terms.describe_terms("uni", published_encoders()["uni"], has_weights=here) for here in (False, True)
    ]
    assert ["HF_TOKEN" in line for line in terms] == [True, False]
    free = encoder_terms.describe_terms("phikon", published_encoders()["phikon"], has_weights=False)
    assert "gated" not in free


def test_a_run_that_begins_with_an_encoder_of_other_tokens_would_fail(settings, cohort, look, tmp_path, capsys):
    cohort([1] * 4)
    first = region_encoder.RegionEncoder(token_dim=32, embed_dim=24, depth=1, n_heads=2, grid=3)
    region_encoder.write_region_encoder(tmp_path / "e.safetensors", first, {})
    runs = {"dino": {"alpha_intra": 0, "alpha_inter": 0}, "slpd": {"init_from": str(tmp_path / "e.safetensors")}}
    with pytest.raises(ValueError, match="1 check"):
        look(settings(pretrain={"runs": runs}))
    said = capsys.readouterr().out
    assert "'token_dim': 64" in said
    assert "slpd: 4 of 4 slides have fewer than 2 regions: all would train as plain DINO" in said


def test_a_trained_patch_encoder_and_others_are_foretold(settings, cohort, look):
    recipe = {
        "global_crop_px": 32,
        "local_crop_px": 16,
        "n_local_crops": 1,
        "hidden_dim": 8,
        "bottleneck_dim": 4,
        "out_dim": 16,
    }
    dino = config.load(read_shipped()).patch_encoder.dino.model_dump() | recipe
    rows = {"untrained": ["knn"], "patch_tokens": None, "mean_color": None, "dino": None}
    cohort([2] * 4)
    encoder = {"source": "dino", "dino": dino, "compared": {"untrained": {"source": "random"}}}
    out = look(settings(patch_encoder=encoder, evaluate={"classifiers": rows | {"slpd": ["knn"]}}))
    assert "(trained here), tokens of 64" in out
    for stage in ("patch_encoder", "tokens", "tokens of untrained"):
        assert f"\n  {stage:24s} " in out


def test_a_full_disk_would_fail(settings, cohort, look, capsys, monkeypatch):
    cohort([8] * 4)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9**9, 9**9, 10_000))
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings())
    assert "FAIL  disk" in capsys.readouterr().out


def test_more_gpus_than_there_are_would_fail(settings, cohort, look, capsys, monkeypatch):
    cohort([1] * 4)
    monkeypatch.setattr(checks.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="1 check"):
        look(settings(), gpus=2)
    assert "2 requested, but this machine has 0" in capsys.readouterr().out


def test_a_package_that_the_settings_need_would_fail_where_it_is_missing(capsys, monkeypatch):
    needed = load_settings(tracker="wandb", tissue={"method": "grandqc", "weights": "x.pth"}).optional_packages
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "wandb" else object())
    report = checks.PreflightReport()
    checks.check_packages(report, needed)
    line = "FAIL  packages     tracker: wandb needs wandb, which is not installed; pip install 'slpd[wandb]'"
    assert capsys.readouterr().out.strip() == line
    assert report.failures == 1
    assert [*needed] == ["wandb", "segmentation_models_pytorch"]
    assert load_settings().optional_packages == {}


def test_one_slide_under_two_labels_of_a_task_is_a_failure(cohort, capsys, tmp_path):
    path = cohort([1] * 4)
    shutil.copy(tmp_path / "0.tiff", tmp_path / "1.tiff")
    path.write_text(path.read_text().replace("patient-1", "patient-0"))
    frame = read_sheet(path)
    slides = frame[["slide_id", "patient_id"]].iloc[:2]
    labels = {"kras": slides.assign(label=["wt", "mut"]), "grade": slides.assign(label="2")}
    report = checks.PreflightReport()
    checks.check_copies(report, [frame], labels)
    assert report.failures == 1
    printed = capsys.readouterr().out
    assert (
        "slide-0, slide-1 are the same slide, byte for byte, but wt and mut in task kras; correct the labels" in printed
    )
    assert "grade" not in printed


@pytest.mark.parametrize("patient", ["patient-0", "patient-1"])
def test_one_slide_under_two_names_is_named(settings, cohort, capsys, patient, tmp_path):
    """Of two patients it would stop the run."""
    path = cohort([1] * 4)
    shutil.copy(tmp_path / "0.tiff", tmp_path / "1.tiff")
    path.write_text(path.read_text().replace("patient-1", patient))
    report = checks.PreflightReport()
    checks.check_copies(report, [read_sheet(path)])
    out = capsys.readouterr().out
    if patient == "patient-0":
        assert "note  copies       The same slide, byte for byte: slide-0, slide-1; remove all but one" in out
    else:
        assert "FAIL  copies       slide-0, slide-1 are the same slide, byte for byte, of patient 'patient-0'" in out
    assert report.failures == (patient == "patient-1")


def test_slides_that_are_their_own_patients_are_counted(cohort, capsys):
    path = cohort([1] * 4)
    checks.check_sheet(checks.PreflightReport(), read_sheet(path), {}, [])
    assert "patients of their own" not in capsys.readouterr().out
    path.write_text(path.read_text().replace("patient-1", "").replace("patient-3", ""))
    report = checks.PreflightReport()
    checks.check_sheet(report, read_sheet(path), {}, [])
    assert "note               2 slides are patients of their own, by their slide_id" in capsys.readouterr().out
    assert not report.failures


def test_a_cohort_without_labels_is_ready_to_be_pretrained_on(settings, cohort, look):
    path = cohort([2, 4, 3, 1])
    rows = [row.split(",") for row in path.read_text().splitlines()]
    path.write_text("\n".join(f"{slide},{patient},{name}" for slide, patient, _, name in rows) + "\n")
    out = look(settings())
    assert "no slide has a label, so evaluation waits for labels" in out
    assert "pretrain slpd" in out
    assert "evaluate" not in out.split("About 10 regions")[1]
    assert out.endswith("Ready.\n")


def test_outlines_are_counted_and_those_that_cannot_be_taken_are_named(settings, cohort, look, tmp_path, capsys):
    cohort([2, 4, 3, 1])
    folder = tmp_path / "masks"
    folder.mkdir()
    corners = [[0, 256], [256, 256], [256, 512], [0, 512], [0, 256]]
    (folder / "slide-1.json").write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    (folder / "notes.txt").touch()
    tissue_of_settings = {"masks_dir": str(folder)}
    out = look(settings(tissue=tissue_of_settings))
    assert "1 of 4 slides have an outline; of no slide: notes.txt" in out
    assert "About 7 regions, by 4 slides" in out  # one of slide-1, in place of four
    (folder / "slide-2.geojson").write_text("[1")
    with pytest.raises(ValueError, match=r"1 check\(s\) failed"):
        look(settings(tissue=tissue_of_settings))
    out = capsys.readouterr().out
    assert "2 of 4 slides have an outline" in out
    assert "slide-2.geojson: not a GeoJSON of areas" in out


def test_outlines_are_held_against_what_opening_the_slides_showed(settings, tmp_path):
    """No slide is opened again: those named here are not there."""
    square = {"type": "Polygon", "coordinates": [[[20, 20], [90, 20], [90, 90], [20, 90], [20, 20]]]}
    opened = [
        slides.SlideProbe({"slide_id": "fits"}, (100, 100), 0.5),
        slides.SlideProbe({"slide_id": "outside"}, (10, 10), 0.5),
        slides.SlideProbe({"slide_id": "bounds"}, (100, 100), 0.5, (5, 5)),
        slides.SlideProbe({"slide_id": "no outline"}, (10, 10), 0.5),
    ]
    paths = {slide.slide_id: tmp_path / f"{slide.slide_id}.geojson" for slide in opened[:3]}
    for path in paths.values():
        path.write_text(json.dumps(square))
    problems = outlines.find_outline_problems(opened, paths, **settings().tissue.outline.model_dump(), threads=2)
    assert [*problems] == ["outside", "bounds"]
    assert "outside the slide of 10 x 10 px" in problems["outside"]
    assert "bounds that begin at (5, 5)" in problems["bounds"]
    assert [*outlines.find_outline_problems(opened, paths, mask_origin="bounds")] == ["outside"]


def test_a_new_slide_that_is_one_of_the_cohorts_is_named(cohort, capsys, tmp_path):
    path, new = cohort([1] * 4), tmp_path / "new.csv"
    shutil.copy(tmp_path / "2.tiff", tmp_path / "n.tiff")
    new.write_text("slide_id,path\nn,n.tiff\n")
    report = checks.PreflightReport()
    checks.check_copies(report, [read_sheet(path), read_sheet(new)])
    assert capsys.readouterr().out == (
        "  note  copies       n, to be predicted: It is slide-2 of the cohort, byte for byte, on which classifiers are "
        "trained: no test of them.\n"
    )
    assert not report.failures


def test_patients_of_new_slides_are_not_looked_at(cohort, capsys, tmp_path):
    path, new = cohort([1] * 4), tmp_path / "new.csv"
    for name in "nm":
        (tmp_path / f"{name}.tiff").write_bytes(b"one content")
    new.write_text("slide_id,path,patient_id\nn,n.tiff,\nm,m.tiff,someone\n")
    report = checks.PreflightReport()
    checks.check_copies(report, [read_sheet(path), read_sheet(new)])
    assert "note  copies       The same slide, byte for byte: n, m; remove all but one" in capsys.readouterr().out
    assert not report.failures


def test_an_external_sheet_is_counted_and_its_doubts_are_named(look, settings, cohort, tmp_path):
    cohort([1] * 4)
    new = tmp_path / "new.csv"
    shutil.copy(tmp_path / "2.tiff", tmp_path / "n.tiff")
    shutil.copy(tmp_path / "1.tiff", tmp_path / "m.tiff")
    new.write_text("slide_id,path,patient_id\nn,n.tiff,p\nm,m.tiff,P\n")
    out = look(settings(predict={"sheet": str(new)}), external=[new])
    assert "external     new: 2 slides of 2 patients, without labels: predicted, not scored" in out
    assert "patient_id: 'p', 'P' look alike" in out
