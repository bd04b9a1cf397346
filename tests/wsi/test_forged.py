"""Slides whose files state what they do not hold are refused before anyone allocates by it."""

import json
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from slpd_core.drawing.overlays import draw_placeholder
from slpd_core.wsi import tiff_limits
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import ome_pixels
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.tiff_pictures import check_ome_planes

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
FORMATS = {SHORT: "H", LONG: "I", LONG8: "Q"}
SPARSE = 1 << 29  # bytes that take no room on the disk, and are read all the same for the fingerprint
HALF_UM, FINEST = 20_000, 200_000  # px a cm
SIDE, TILE = 2048, 256

Pages = list[dict[int, tuple]]


def write_big_tiff(path: Path, pages: Pages, data: bytes = b"", whole: int = 0, loops: bool = False) -> int:
    """Write a BigTIFF of directories {tag: (type, count, values, bytes, or the place they are said to stand)}.

    data: after the directories; whole: size of the file, a hole at its end. Gives where the data begin.
    """
    out, follows = bytearray(b"II" + struct.pack("<HHHQ", 43, 8, 0, 16)), 8
    for page in pages:
        struct.pack_into("<Q", out, follows, len(out))
        out += struct.pack("<Q", len(page))
        entries, follows = len(out), len(out) + 20 * len(page)
        out += bytes(20 * len(page) + 8)
        for number, (tag, (kind, count, value)) in enumerate(sorted(page.items())):
            content = struct.pack("<Q", value) if isinstance(value, int) else value
            if isinstance(value, tuple):
                content = struct.pack(f"<{len(value)}{FORMATS[kind]}", *value)
            if len(content) > 8:
                content, tail = struct.pack("<Q", len(out)), content
                out += tail
            struct.pack_into("<HHQ8s", out, entries + 20 * number, tag, kind, count, content)
    if loops:
        struct.pack_into("<Q", out, follows, 16)
    with path.open("wb") as file:
        file.write(out + data)
        file.truncate(max(whole, len(out) + len(data)))
    return len(out)


def page(width: int = SIDE, height: int = SIDE, tile: int = TILE, tiles: int = 64, **changes) -> dict[int, tuple]:
    """A directory of JPEG tiles; changes: t{tag}=(type, count, value)."""
    px_a_cm = struct.pack("<II", changes.pop("px_a_cm", HALF_UM), 1)
    own = {256: (LONG, 1, (width,)), 257: (LONG, 1, (height,)), 258: (SHORT, 3, (8, 8, 8)), 259: (SHORT, 1, (7,))}
    own |= {262: (SHORT, 1, (6,)), 277: (SHORT, 1, (3,)), 284: (SHORT, 1, (1,)), 322: (LONG, 1, (tile,))}
    own |= {323: (LONG, 1, (tile,)), 282: (RATIONAL, 1, px_a_cm), 283: (RATIONAL, 1, px_a_cm), 296: (SHORT, 1, (3,))}
    own |= {324: (LONG8, tiles, (0,) * tiles), 325: (LONG8, tiles, (0,) * tiles)}
    return own | {int(tag[1:]): value for tag, value in changes.items()}


def write_tiles(path: Path, stream: bytes, own: dict[int, tuple]) -> None:
    """Write a slide each of whose tiles is the same stream."""
    tiles = own[324][1]
    own[325] = (LONG8, tiles, (len(stream),) * tiles)
    own[324] = (LONG8, tiles, (write_big_tiff(path, [own]),) * tiles)
    write_big_tiff(path, [own], stream)


def jpeg(side: int = TILE) -> bytes:
    return simplejpeg.encode_jpeg(np.full((side, side, 3), (200, 120, 170), np.uint8))


def states_px(stream: bytes, side: int) -> bytes:
    """A JPEG whose header states another size."""
    at = stream.index(b"\xff\xc0") + 5
    return stream[:at] + struct.pack(">HH", side, side) + stream[at + 4 :]


def progressive(path: Path, side: int) -> bytes:
    """A JPEG that is decoded as a whole, of no more bytes than its size needs."""
    Image.new("RGB", (side, side), (200, 120, 170)).save(path, "JPEG", progressive=True, subsampling=0)
    return path.read_bytes()


def jpeg2000() -> bytes:
    """A JPEG 2000 stream whose header states 60,000 x 60,000 px in one tile."""
    stream = imagecodecs.jpeg2k_encode(np.zeros((TILE, TILE, 3), np.uint8), codecformat="j2k")
    at, side = stream.index(b"\xff\x51") + 6, struct.pack(">II", 60_000, 60_000)
    return stream[:at] + side + stream[at + 8 : at + 16] + side + stream[at + 24 :]


BOMBS = {"jpeg2000": jpeg2000, "deflate": lambda: zlib.compress(bytes(1 << 26))}


def forge(folder: Path) -> dict[str, str]:
    """Write the hostile slides, and one that is none: {name: what its reason must say, "" where there is none}."""
    hole = {"whole": SPARSE + 8192}
    million = page(10**6, 10**6, tiles=1)
    many = (10**6 // 128) ** 2
    small = {256: (LONG, 1, (16,)), 257: (LONG, 1, (16,))}
    write_tiles(folder / "honest.tiff", jpeg(), page())
    write_big_tiff(folder / "million.tiff", [million], bytes(4096))
    write_big_tiff(folder / "finest.tiff", [page(10**6, 10**6, tiles=1, px_a_cm=FINEST)], bytes(4096))
    lists = {"t324": (LONG8, many, 4096), "t325": (LONG8, many, 4096)}
    write_big_tiff(folder / "lists.tiff", [page(10**6, 10**6, 128, **lists)], whole=8 * many + 8192)
    write_big_tiff(folder / "tile.tiff", [page(1 << 16, 1 << 16, 1 << 16, tiles=1)], bytes(4096))
    write_tiles(folder / "raw.tiff", jpeg(), page(1 << 16, 1 << 16, 1 << 16, tiles=1, t259=(SHORT, 1, (1,))))
    write_tiles(folder / "jpeg.tiff", states_px(jpeg(), 65_500), page())
    write_tiles(folder / "largest.tiff", progressive(folder / "a.jpg", 8192), page(8192, 8192, 8192, tiles=1))
    write_big_tiff(folder / "tables.tiff", [page(t347=(7, SPARSE, 4096))], **hole)
    write_big_tiff(folder / "text.tiff", [page(t270=(2, SPARSE, 4096))], **hole)
    write_big_tiff(folder / "profile.tiff", [page(t34675=(7, SPARSE, 4096))], **hole)
    write_big_tiff(folder / "loop.tiff", [page(), page()], loops=True)
    write_big_tiff(folder / "directories.tiff", [page()] + [small] * 20_000)
    write_big_tiff(folder / "levels.tiff", [page(SIDE - n, t254=(LONG, 1, (n > 0,))) for n in range(100)])
    write_big_tiff(folder / "below.tiff", [page(t330=(LONG8, 1 << 20, np.arange(8, 8 + (1 << 20)).tobytes()))])
    shared = {"t324": (LONG8, 1 << 21, 4096), "t325": (LONG8, 1 << 21, 4096)}
    write_big_tiff(folder / "shared.tiff", [page()] + [page(**shared)] * 10)
    crowded = small | dict.fromkeys(range(30000, 33000), (SHORT, 1, (1,)))
    write_big_tiff(folder / "tags.tiff", [page()] + [crowded] * 200)
    for name, compression in (("jpeg2000", 34712), ("deflate", 8)):
        kind = {"t259": (SHORT, 1, (compression,)), "t262": (SHORT, 1, (2,))}
        write_tiles(folder / f"{name}.tiff", BOMBS[name](), page(**kind))
    write_tiles(folder / "glass.tiff", jpeg(SIDE), page(80 * SIDE, 80 * SIDE, SIDE, tiles=6400))
    return {
        "honest": "",
        "million": "broken directory, 1 tiles listed",
        "finest": "broken directory, 1 tiles listed",
        "lists": "tag 324 of directory 0 states 61027344 values",
        "tile": "states tiles of 65536 x 65536 px",
        "raw": "states tiles of 65536 x 65536 px",
        "jpeg": "broken tile of level 0 at x=0, y=0",
        "tables": "tag 347 of directory 0 states 536870912 values",
        "text": "tag 270 of directory 0 states 536870912 values",
        "profile": "tag 34675 of directory 0 states 536870912 values",
        "loop": "not a whole slide",
        "directories": "more than 10000 directories",
        "levels": "states 100 levels, more than 64",
        "below": "more than 10000 directories",
        "shared": "directories state",
        "tags": "directories state",
        "jpeg2000": "broken tile of level 0 at x=0, y=0",
        "deflate": "broken tile of level 0 at x=0, y=0",
        "glass": "82 x 82 mm of glass by its 0.5 um/px, 10240 x 10240 px in its thumbnail",
        "largest": "",
    }


FIND_TISSUE = """
import json, re, resource, sys
from pathlib import Path
import yaml
from slpd_core import artifacts, config
from slpd_core.slides import tissue
from slpd_core.wsi import errors
settings = config.load(yaml.safe_load(Path("config.yaml").read_text()))
folder, quarantine = Path(sys.argv[1]), errors.quarantine_errors("quarantine", last_attempt=False)
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for slide in sys.argv[2:]:
    geojson = folder / f"{slide}.geojson"
    tissue.run(
        slide_id=slide, slide_path=folder / f"{slide}.tiff", mpp=None, geojson_path=geojson,
        overlay_path=folder / f"{slide}.png", section=settings.tissue.segmentation, quarantine=quarantine,
    )
    info = artifacts.read_tissue(geojson)[0].slide
    most = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())  # since the program began
    print(json.dumps([slide, info.status, info.reason, int(most[1]) // 1024]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what /proc says, and holes in files")
def test_what_a_slide_states_takes_no_memory(tmp_path):
    """All of them by one process, which may take 8 GB; the most it had was for the largest tile, the last."""
    said = forge(tmp_path)
    command = [sys.executable, "-c", FIND_TISSUE, str(tmp_path), *said]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [*said], done.stderr
    for slide, status, reason, _ in lines:
        assert status == ("quarantined" if said[slide] else "ok"), (slide, reason)
        assert said[slide] in reason
        if reason:
            assert str(tmp_path / f"{slide}.tiff") in reason
            assert "remove it from the sheet" in reason or "convert it" in reason
    assert max(line[3] for line in lines[:-1]) < 300, lines  # MB
    assert lines[-1][3] < 1000


def test_a_slide_of_ordinary_size_is_none_of_these():
    sizes = [(100_000 >> level, 100_000 >> level) for level in range(9)]
    tiff_limits.check_levels(
        sizes, {f"openslide.level[{level}].tile-width": "4096" for level in range(9)}, Path("a.svs")
    )
    tiff_limits.check_thumbnail((6250, 6250), (100_000, 100_000), 0.5, Path("a.svs"))
    with pytest.raises(SlideError, match=r"a\.svs: states 1000000 x 1000000 px at level 0, larger than any slide"):
        tiff_limits.check_levels([(10**6, 10**6)], {}, Path("a.svs"))
    tiles = {"openslide.level[0].tile-width": "100000", "openslide.level[0].tile-height": "100000"}
    with pytest.raises(SlideError, match=r"a\.svs: states tiles of 100000 x 100000 px"):
        tiff_limits.check_levels(sizes, tiles, Path("a.svs"))


@pytest.mark.parametrize(
    "name", ["cmu-1-small-region.svs", "CMU-1-Small-Region.jpeg.tiff", "tcga-cr-7395-01a-01-ts1.svs"]
)
def test_real_slides_state_nothing_wrong(real, name):
    tiff_limits.check_tiff(real(name))
    Slide(real(name), 0.5).close()


MATRIX, FRAME = ((0x48, 6), (0x48, 7)), ((0x28, 16), (0x28, 17))  # DICOM's tags of the sides of a slide, of a tile


@pytest.mark.parametrize(
    ("tags", "kind", "value", "what"),
    [
        (MATRIX, b"UL\4\0", struct.pack("<I", 10**6), "states 1000000 x 1000000 px at level 0"),
        (FRAME, b"US\2\0", struct.pack("<H", 65_535), "states tiles of 65535 x 65535 px"),
    ],
    ids=["slide", "tile"],
)
def test_other_formats_are_held_to_the_same(real, tmp_path, tags, kind, value, what):
    content = real("multiframe_camelyon_challenge_image.dcm").read_bytes()
    for tag in tags:
        at = content.index(struct.pack("<HH", *tag) + kind) + 8
        content = content[:at] + value + content[at + len(value) :]
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(SlideError, match=rf"a\.dcm: {what}"):
        Slide(tmp_path / "a.dcm", 0.5)


def test_a_reason_quotes_little_of_the_slide(tmp_path):
    """It is drawn as a picture, a line of which takes 65 KB."""
    text = '<OME><Pixels SizeC="' + "9\u202e\n" * 10**6 + '"><Channel SamplesPerPixel="1"/></Pixels></OME>'
    with pytest.raises(SlideError) as error:
        check_ome_planes(text, 1, tmp_path / "a.tiff")
    assert str(error.value).startswith(f"{tmp_path / 'a.tiff'}: an OME-TIFF of 9\\u202e\\n9")
    assert str(error.value).endswith("--interpretation srgb")
    assert len(str(error.value)) < 1010
    assert str(error.value).isprintable()
    assert draw_placeholder("a", str(error.value)).height < 2000


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_every_directory_is_looked_at_in_any_order_of_bytes(tmp_path, monkeypatch, order, big):
    """Of three pages, the first with one below it, the tiles of all."""
    path, seen = tmp_path / "a.tiff", []
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as writer:
        for below, side in ((1, 16), (0, 32), (0, 48), (0, 64)):
            writer.write(np.zeros((64, 64, 3), np.uint8), tile=(side, 16), subifds=below, subfiletype=0)
    monkeypatch.setattr(tiff_limits, "check_tile", lambda width, height, _: seen.append((width, height)))
    tiff_limits.check_tiff(path)
    assert sorted(seen) == [(16, 16), (16, 32), (16, 48), (16, 64)]


def test_the_directories_of_hamamatsu_are_looked_at(tmp_path):
    """Classic TIFF, but for places of 8 bytes."""
    first = struct.pack("<HHHII", 1, tiff_limits.NDPI, LONG, 1, 1) + struct.pack("<Q", 64)
    second = struct.pack("<HHHII", 1, 270, 2, 1 << 31, 4096)
    content = (b"II" + struct.pack("<HQ", 42, 16)).ljust(16, b"\0") + first
    (tmp_path / "a.ndpi").write_bytes(content.ljust(64, b"\0") + second + bytes(64))
    with pytest.raises(SlideError, match="tag 270 of directory 1 states 2147483648 values"):
        tiff_limits.check_tiff(tmp_path / "a.ndpi")


@pytest.mark.parametrize(("planes", "count"), [([], 1), ([-3, 0, 3], 3), ([0, 0], 1)])
def test_planes_of_focus_of_hamamatsu_are_counted(tmp_path, planes, count):
    """Directories one behind the other, each numbered by its plane; SLONG, so that some lie below the first."""
    content = b"II" + struct.pack("<HI", 42, 8)
    for number, plane in enumerate(planes or [None]):
        tags = struct.pack("<HHII", 256, LONG, 1, 64) + (
            b"" if plane is None else struct.pack("<HHIi", tiff_limits.FOCUS, 9, 1, plane)
        )
        length = 2 + len(tags) + 4
        follows = len(content) + length if number + 1 < len(planes) else 0
        content += struct.pack("<H", len(tags) // 12) + tags + struct.pack("<I", follows)
    (tmp_path / "a.ndpi").write_bytes(content)
    assert tiff_limits.count_focal_planes(tmp_path / "a.ndpi") == count


def test_a_size_below_one_is_no_slide():
    """OpenSlide states a height of -2**63 of a Ventana slide whose joints lead nowhere."""
    with pytest.raises(SlideError, match=r"a\.bif: states 512 x -9223372036854775808 px at level 0"):
        tiff_limits.check_levels([(512, -(1 << 63))], {}, Path("a.bif"))


@pytest.mark.parametrize(
    "content", [b"", b"II", b"no slide, but text", b"II*\0\xff\xff\xff\xff" + bytes(8), b"MM\0+" * 9]
)
def test_what_is_no_tiff_is_left_to_others(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    tiff_limits.check_tiff(tmp_path / "a")


@pytest.mark.parametrize(
    "text", ["<Pixels " * 500_000, "<Pixels " + "a" * 1_000_000 + ">", "<Pixels/>" + "<Channel " * 500_000]
)
def test_a_description_that_never_ends_takes_no_time(text):
    """Each of these kept the reader busy for hours."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert ome_pixels(text) == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 10
