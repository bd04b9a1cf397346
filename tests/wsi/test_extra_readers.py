"""Packages of the extra `readers`, here played by fakes: when they are asked, and what becomes of their answers."""

import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from slpd_core.wsi import identity
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.slide_files import PACKAGES, slide_files
from slpd_core.wsi.slide_folder import find_slides

OPENED = []  # by the fakes


@pytest.fixture
def levels():
    """Two levels, the finer one of 2500 x 1300 px, so that it takes several reads."""
    base = np.random.default_rng(5).integers(0, 256, (1300, 2500, 3), dtype=np.uint8)
    return [base, base[::2, ::2]]


@pytest.fixture
def install(monkeypatch, levels):
    """Install the fakes; values replace those of fastslide's slide, alpha is the opacity of the others' pixels."""

    def fast_slide(path, **values):
        def read_region(location, level, size):
            (x, y), (width, height) = location, size
            return SimpleNamespace(numpy=lambda: levels[level][y : y + height, x : x + width])

        attributes = {"dtype": "uint8", "num_channels": 3, "num_images": 1, "z_count": 1, "mpp": (0.25, 0.25)}
        sizes = tuple(level.shape[1::-1] for level in levels)
        attributes |= {"format": "iSyntax", "level_dimensions": sizes, "read_region": read_region}
        return SimpleNamespace(**(attributes | values), close=lambda: None)

    def like_openslide(path, alpha):
        def read_region(location, level, size):
            x, y = (int(at / 2**level) for at in location)
            rgba = np.zeros((size[1], size[0], 4), np.uint8)
            rgba[..., :3], rgba[..., 3] = levels[level][y : y + size[1], x : x + size[0]], alpha
            return Image.fromarray(rgba)

        properties = {"openslide.vendor": "kfbio", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25", "other": "?"}
        return SimpleNamespace(
            level_dimensions=[level.shape[1::-1] for level in levels],
            level_downsamples=(1.0, 2.0),
            properties=properties,
            read_region=read_region,
            close=lambda: None,
        )

    def make(alpha=255, refusal=None, **values):
        def opened(build, path, *args, **options):
            OPENED.append(path)
            if refusal:
                raise refusal
            return build(path, *args, **options)

        OPENED.clear()
        fakes = {name: ModuleType(name) for name in PACKAGES.values()}
        fakes["fastslide"].FastSlide = SimpleNamespace(from_file_path=lambda path: opened(fast_slide, path, **values))
        for name in ("kfbslide", "tmapslide"):
            fakes[name].OpenSlide = lambda path: opened(like_openslide, path, alpha)
        for name, fake in fakes.items():
            monkeypatch.setitem(sys.modules, name, fake)
        monkeypatch.setattr(metadata, "version", lambda name: "1.2.3")

    return make


@pytest.fixture
def path(tmp_path, request):
    """A file of some extension that OpenSlide does not know."""
    path = tmp_path / f"a{getattr(request, 'param', '.isyntax')}"
    path.write_bytes(b"of another kind")
    return path


@pytest.mark.parametrize("path", sorted(PACKAGES), indirect=True)
def test_each_extension_is_read_to_the_pixel_and_the_reader_named(path, levels, install):
    install()
    with Slide(path) as slide:
        assert (slide.size, slide.mpp, slide.mpp_source) == ((2500, 1300), 0.25, "vendor")
        assert slide.remarks == (f"Read by {PACKAGES[path.suffix]} 1.2.3.",)
        assert (slide.read((0, 0), (2500, 1300), 0.25) == levels[0]).all()
        assert (slide.read((1000, 600), (600, 300), 0.5) == levels[1][300:600, 500:1100]).all()
        edge = slide.read((2400, 1200), (200, 150), 0.25)
        assert (edge[:100, :100] == levels[0][1200:, 2400:]).all()
        assert (edge[100:] == 255).all()
        assert (edge[:, 100:] == 255).all()


@pytest.mark.parametrize("path", sorted(PACKAGES), indirect=True)
def test_a_missing_package_is_named_with_the_command_that_installs_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[path.suffix], None)
    package = PACKAGES[path.suffix]
    with pytest.raises(
        SlideError, match=rf"not a whole slide.*install its reader {package}.*pip install 'slpd\[readers\]'"
    ):
        Slide(path)


def test_kinds_that_openslide_knows_never_go_to_a_package(tmp_path, levels, install):
    install()
    for name in ("a.svs", "a.tif", "a.ndpi", "a.mrxs", "a.dcm"):
        (tmp_path / name).write_bytes(b"of another kind")
        with pytest.raises(SlideError):
            Slide(tmp_path / name)
    tifffile.imwrite(
        tmp_path / "a.qptiff",
        levels[0],
        photometric="rgb",
        tile=(256, 256),
        compression="zlib",
        resolution=(40_000, 40_000),
        resolutionunit=3,
    )
    with Slide(tmp_path / "a.qptiff") as slide:
        assert (slide.read((0, 0), (500, 500), 0.25) == levels[0][:500, :500]).all()
    assert OPENED == []


def test_a_file_whose_claims_are_too_large_goes_to_no_package(tmp_path, install):
    install()
    tifffile.imwrite(tmp_path / "a.qptiff", np.zeros((16, 16, 3), np.uint8), photometric="rgb", tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "a.qptiff", mode="r+b") as file:
        file.pages[0].tags["TileWidth"].overwrite(60_000)
        file.pages[0].tags["TileLength"].overwrite(60_000)
    with pytest.raises(SlideError, match="states tiles of 60000 x 60000 px"):
        Slide(tmp_path / "a.qptiff")
    assert OPENED == []


@pytest.mark.parametrize("values", [{"dtype": "uint16"}, {"num_channels": 4}, {"num_channels": 1}], ids=str)
def test_pixels_other_than_8_bit_rgb_are_refused(path, install, values):
    install(**values)
    with pytest.raises(SlideError, match=r"a\.isyntax: . channels of uint.*, not 8-bit RGB; save it as RGB"):
        Slide(path)


def test_several_pictures_and_planes_are_remarked_on(path, install):
    install(num_images=3, z_count=5)
    with Slide(path) as slide:
        assert slide.remarks[:2] == (
            "Of the file's 3 pictures the largest is read.",
            "Of the slide's 5 planes of focus the first is read.",
        )


def test_a_file_that_the_package_refuses_is_named(path, install):
    install(refusal=RuntimeError("no such codec"))
    with pytest.raises(SlideError, match=r"a\.isyntax: fastslide does not read it \(no such codec\); copy it again"):
        Slide(path)
    install(refusal=OSError("stale file handle"))
    with pytest.raises(OSError, match="stale"):  # an outage, not the slide's fault
        Slide(path)


@pytest.mark.parametrize("read", [lambda *_: 1 / 0, lambda *_: SimpleNamespace(numpy=lambda: np.zeros((3, 3), "u1"))])
def test_data_that_the_package_does_not_read_are_named(path, install, read):
    install(read_region=read)
    with Slide(path) as slide, pytest.raises(SlideError, match=r"broken data of level 0 at x=1024, y=0, by fastslide"):
        slide.read((1100, 0), (100, 100), 0.25)


@pytest.mark.parametrize("path", [".kfb"], indirect=True)
def test_transparent_tiles_are_missing(path, levels, install):
    alpha = 0
    install(alpha=alpha)
    with Slide(path) as slide, pytest.raises(SlideError, match="missing tiles of level 0 at x=0, y=0"):
        slide.read((0, 0), (100, 100), 0.25)
    with Slide(path, missing_tiles="white") as slide:
        assert (slide.read((0, 0), (100, 100), 0.25) == 255).all()


def test_a_slide_is_all_of_its_files(tmp_path):
    for name in ("a.vsi", "_a_/stack1/frame_t_0.ets", "_b_/frame.ets", "t.tmap", "t.DT1", "t.DT2", "u.DT1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    assert [name for name, _ in slide_files(tmp_path / "a.vsi")] == ["", "stack1/frame_t_0.ets"]
    assert [file.name for _, file in slide_files(tmp_path / "t.tmap")] == ["t.tmap", "t.DT1", "t.DT2"]
    before = identity.slide_fingerprint(tmp_path / "a.vsi")
    (tmp_path / "_a_" / "stack1" / "frame_t_0.ets").write_bytes(b"another")
    assert identity.slide_fingerprint(tmp_path / "a.vsi") != before
    slides, others = find_slides(tmp_path)
    assert [name for name, _ in slides] == ["a", "t"]
    assert others[".ets"] == 1  # that of _b_, which belongs to no slide
