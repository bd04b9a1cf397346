"""Files, names and settings from elsewhere are data: nothing they hold is run, and nothing they state is believed."""

import ast
import copy
import csv
import json
import os
import re
import runpy
import struct
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slpd_core import artifacts, config, runtime
from slpd_core.drawing.html import render
from slpd_core.encoders import pretrained_weights
from slpd_core.encoders.foreign_weights import read_state_dict
from slpd_core.report import table_format
from slpd_core.runtime import gpus
from slpd_core.slides import outlines, sheet
from slpd_core.ssl.checkpoint import Checkpoint
from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for folder in ("slpd_core", "workflow_scripts") for path in (ROOT / folder).rglob("*.py"))
RULES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
# What runs what a text or a file says, by the names of this code's imports.
NEVER = (
    *("eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "marshal.loads", "shelve.open", "joblib.load", "pd.read_pickle", "torch.hub.load"),
    *("yaml.load", "yaml.unsafe_load", "shutil.unpack_archive", "tempfile.mktemp"),
)


@pytest.fixture(scope="module")
def settings():
    """config.yaml as it stands."""
    return config.load(read_shipped())


@cache
def calls(path: Path):
    """(dotted name, {argument: source}) of every call in a module."""
    return [
        (ast.unparse(node.func), {own.arg: ast.unparse(own.value) for own in node.keywords})
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


# No pickle, and nothing that runs what it reads


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_is_read_is_run(path):
    for name, arguments in calls(path):
        assert name not in NEVER
        assert not {"shell", "trust_remote_code"} & arguments.keys(), name
        assert arguments.get("allow_pickle", "False") == "False", name
        assert name != "torch.load" or arguments.get("weights_only") == "True"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_no_rule_has_a_shell(path):
    words = [re.escape(name) for name in NEVER]
    assert not re.search(rf"^ *(shell|run): *$|\b(shell|{'|'.join(words)})\(", path.read_text(), re.MULTILINE)


class Harmful:
    """What a pickle runs when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.makedirs, (str(self.trace), 0o777, True)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_weights_or_a_checkpoint_is_not_run(tmp_path, protocol, zipped):
    content = {name: Harmful(tmp_path / "ran") for name in ("run_config", "history", "extra_state", "networks")}
    path = tmp_path / "a.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*a\.pth: not a whole file of tensors"):
        read_state_dict(path, "patch_encoder.weights")
    with pytest.raises(ValueError, match=r"broken checkpoint .*a\.pth: not a whole file of tensors.*delete it"):
        Checkpoint(path, {}).restore(None)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


# What weights state


def compressed(path: Path) -> None:
    """Pack 64 MB of zeros into 64 KB."""
    torch.save({"a": torch.zeros(1 << 24)}, path)
    with zipfile.ZipFile(path) as file:
        parts = {item: file.read(item) for item in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for item, content in parts.items():
            file.writestr(item, content)


def safetensors_of(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


TENSOR = {"a": {"dtype": "F16", "shape": [10**10], "data_offsets": [0, 2 * 10**10]}}


def of_many_names(path: Path) -> None:
    """2,000 names of one tensor of 2 MB in half precision."""
    tensor = torch.zeros(1 << 20, dtype=torch.half)
    torch.save({f"a{name}": tensor for name in range(2000)}, path)


def of_huge_storages(path: Path) -> None:
    """A file as torch wrote until 2020 that states ten storages of 2 MB and holds none."""
    state = {f"a{name}": torch.zeros(5, dtype=torch.half) for name in range(10)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    five, million = b"K\x05N", b"J\x00\x00\x10\x00N"  # a storage's numbers, of no view, as they are pickled
    assert path.read_bytes().count(five) == 10
    path.write_bytes(path.read_bytes().replace(five, million))


def of_one_place(path: Path) -> None:
    """An archive whose records of 2 MB are all in one place of the file."""
    torch.save({f"a{name}": torch.zeros(1 << 20, dtype=torch.half) for name in range(9)}, path)
    with zipfile.ZipFile(path) as whole:
        parts = {item.filename.partition("/")[2]: whole.read(item) for item in whole.infolist()}
    with zipfile.ZipFile(path, "w") as file:
        for name in [name for name in parts if not name.startswith("data/")]:
            file.writestr(f"a/{name}", parts[name])
        file.writestr("a/data/0", parts["data/0"])
        first = file.getinfo("a/data/0")
        for number in range(1, 9):
            other = copy.copy(first)
            other.filename = other.orig_filename = f"a/data/{number}"
            file.filelist.append(other)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("name", "write", "what"),
    [
        ("names.pth", of_many_names, r"names.pth: its names share tensors that would be 4,194,304,000 bytes"),
        ("old.pth", of_huge_storages, r"its tensors claim 2,097,152 bytes, the file has"),
        ("overlapping.pth", of_one_place, "not a whole file of tensors"),
        ("packed.pth", compressed, "its tensors are compressed"),
        (
            "strides.pth",
            lambda path: torch.save({"a": torch.zeros(1, dtype=torch.half).expand(10**10)}, path),
            r"strides.pth: a states \[10000000000\] numbers, more than it holds",
        ),
        (
            "sparse.pth",
            lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path),
            r"sparse.pth: a states \[2, 2\] numbers, more than it holds",
        ),
        ("length.safetensors", lambda path: path.write_bytes(safetensors_of(b"{}", 1 << 62)), "header too large"),
        ("shape.safetensors", lambda path: path.write_bytes(safetensors_of(json.dumps(TENSOR).encode())), "incomplete"),
        ("deep.safetensors", lambda path: path.write_bytes(safetensors_of(b'{"a":' * 10**5)), "recursion limit"),
        ("zip.pth", lambda path: path.write_bytes(b"PK\5\6" + b"\1" * 18), "zip.pth"),
    ],
)
def test_weights_take_no_more_memory_than_their_file(tmp_path, name, write, what):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=what):
        read_state_dict(tmp_path / name, "patch_encoder.weights")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"checkpoint_path": "evil.pth"}, "'checkpoint_path' is no part of an architecture"),
        ({"pretrained": True, "pretrained_cfg": {"url": "http://127.0.0.1:9/a.pth"}}, "'pretrained' is no part"),
        ({"pretrained_cfg_overlay": {"file": "evil.pth"}}, "'pretrained_cfg_overlay' is no part"),
        ({"depth": 10**9}, r"depth: 1000000000 is no number of blocks within 1-\d+"),
    ],
)
def test_the_config_of_a_downloaded_model_reads_and_fetches_nothing(tmp_path, arguments, what):
    described = {"architecture": "vit_tiny_patch16_224", "model_args": arguments, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=rf"patch_encoder\.model_kwargs.*{what}"):
        pretrained_weights.load_timm(f"local-dir:{tmp_path}")


def test_a_text_nested_without_end_is_a_broken_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 10**5)
    for read in (artifacts.read_geojson_polygons, artifacts.read_tissue):
        with pytest.raises(ValueError, match=r"config\.json: "):
            read(path)
    with pytest.raises(ValueError, match="names no timm architecture"):
        pretrained_weights.load_timm(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("corner", ["[NaN, 0]", "[1e999, 0]", "[-1e308, 1e999]"])
@pytest.mark.parametrize("kind", ["Polygon", "__class__"])
def test_an_outline_that_is_none_is_named(tmp_path, corner, kind):
    path = tmp_path / "a.geojson"
    path.write_text(f'{{"type": "{kind}", "coordinates": [[{corner}, [1, 0], [1, 1], {corner}]]}}')
    with pytest.raises(ValueError, match=r"a\.geojson: (not a GeoJSON of areas|a corner is not finite)"):
        outlines.read_outline(path, (100, 100))


# What arrays state


def elsewhere(file: h5py.File, kind: str, other: Path) -> None:
    """Make `coords` an array that is not in the file, or larger than it."""
    if kind == "external file":
        file.create_dataset("coords", (2, 2), np.int64, external=[(str(other), 0, 32)])
    elif kind == "link":
        file["coords"] = h5py.ExternalLink(str(other), "/coords")
    elif kind == "soft link":
        file["coords"] = h5py.SoftLink("/coords")
    elif kind == "virtual":
        layout = h5py.VirtualLayout((2, 2), np.int64)
        layout[:] = h5py.VirtualSource(str(other), "coords", (2, 2))
        file.create_virtual_dataset("coords", layout)
    elif kind == "packed":
        file.create_dataset("coords", (10**9, 2), np.int64, chunks=(10**6, 2), compression="gzip")
    elif kind == "never written":
        file.create_dataset("coords", (10**12, 2), np.int64)
    else:
        file.create_group("coords")


@pytest.mark.parametrize(
    ("kind", "what"),
    [(kind, "coords is no plain array") for kind in ("external file", "link", "virtual", "packed", "folder")]
    + [("soft link", "coords"), ("never written", r"coords \(1000000000000, 2\) is larger than the file")],
)
def test_an_array_is_in_its_file(tmp_path, kind, what):
    other, path = tmp_path / "other.h5", tmp_path / "a.h5"
    with h5py.File(other, "w") as file:
        file["coords"] = np.ones((2, 2), np.int64)
    with h5py.File(path, "w") as file:
        elsewhere(file, kind, other)
        file["tissue_fraction"] = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=rf"a\.h5: .*{what}.*delete the file"):
        artifacts.read_regions(path)


# Names


LOOKALIKES = [f"a{sign}b" for sign in "\uff0f\u2044\u2215\u202e\u200b\u2028\x85\u00a0\U000e0041"]
SHELL = [f"a{sign}b" for sign in "&'#;!~[]$\\`\"<>|*?{}:/,=@%^\n\r\t\0"]
FOLDERS = ["../x", "/etc/x", "..", ".", "a/../b", ".hidden", "~root", "x" * 201, ""]
WORDS = ["-rf", "--config", "+a", " a", "a ", "a."]


@pytest.mark.parametrize("name", [*SHELL, *LOOKALIKES, *FOLDERS, *WORDS], ids=ascii)
def test_a_name_cannot_leave_its_folder_or_be_a_word_to_a_shell(settings, name):
    frame = pd.DataFrame([{"slide_id": name, "path": __file__, "mpp": ""}])
    (problem,) = sheet.find_sheet_problems(frame)
    assert f"slide {name!r}: slide_id is no plain file name; use letters" in problem
    values = read_shipped()
    places = {"cohort": ("cohort",), "runs": ("pretrain", "runs"), "compared": ("patch_encoder", "compared")}
    places |= {"classifiers": ("evaluate", "classifiers"), "tables": ("report", "tables")}
    for key, (*within, last) in places.items():
        changed = json.loads(json.dumps(values))
        section = changed
        for part in within:
            section = section[part]
        table = {"cohorts": ["a"], "rows": ["slpd/mil"]}
        section[last] = (
            name if key == "cohort" else {name: ["mil"] if key == "classifiers" else table if key == "tables" else {}}
        )
        with pytest.raises(ValueError, match=key) as error:
            config.load(changed)
        assert repr(name) in str(error.value) or key == "classifiers"


@pytest.mark.parametrize("name", ["größe-1", "gro\u0308ße-1", "TCGA-CR-7395.1A", "Präp 7 (2)", "玻片 3", "H+E_2", "7"])
def test_an_ordinary_name_is_taken(name):
    assert [*sheet.find_sheet_problems(pd.DataFrame([{"slide_id": name, "path": __file__, "mpp": ""}]))] == []


def test_names_that_a_disk_takes_for_one_are_two_slides():
    slides = [
        {"slide_id": name, "path": path, "mpp": ""}
        for name, path in (("größe", __file__), ("GRO\u0308ßE", sys.executable))
    ]
    (problem,) = sheet.find_sheet_problems(pd.DataFrame(slides))
    assert "slide_id is already in row 0" in problem


@pytest.mark.parametrize("column", ["slide_id", "patient_id", "path", "site"])
@pytest.mark.parametrize("sign", ["\u202e", "\n", "\x1b[2J", "\u2028"], ids=ascii)
def test_what_does_not_show_is_no_part_of_a_sheet(tmp_path, column, sign):
    slide = {"slide_id": "a", "patient_id": "p", "path": "a.svs", "site": "h"} | {column: f"a{sign}b"}
    (tmp_path / "a.csv").write_text(",".join(slide) + "\n" + ",".join(f'"{text}"' for text in slide.values()))
    with pytest.raises(ValueError, match=rf"row \d: {column} 'a\\.* contains invisible characters; retype it"):
        sheet.read_sheet(tmp_path / "a.csv")


# What is written for people


def test_no_text_steers_the_terminal(tmp_path, capsys):
    """Of a slide's text, a mask's file name or a weight's, quoted by an error or a log line."""
    text = "a\x1b]0;title\a\x9b2J\u202e\r"

    def fail():
        with runtime.job(str(tmp_path / "a.log"), "tissue a"):
            runtime.log.warning("%s: é\u3000\n", text)
            raise ValueError(f"{text}: broken")

    with pytest.raises(SystemExit):
        fail()
    said = capsys.readouterr().err + (tmp_path / "a.log").read_text()
    assert said.count("a\\x1b]0;title\\x07\\x9b2J\\u202e\\r") == 5  # warning and error, twice, and the traceback
    assert all(sign.isprintable() or sign in "\n\u3000" for sign in said)
    assert "é\u3000" in said


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    texts = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1"]
    frame = pd.DataFrame({"text": [*texts, "a=b", "é"], "-head": -1.5, "number": np.arange(9)})
    artifacts.write_csv(tmp_path / "a.csv", frame)
    back = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert back["text"].to_list() == [f"'{text}".replace("\r", " ").replace("\t", "\t'") for text in texts] + [
        "a=b",
        "é",
    ]
    assert (back["'-head"] == -1.5).all()
    assert back["number"].to_list() == [*range(9)]


@given(st.lists(st.text("ab=+-@;\t\n\r\" '|", max_size=8), min_size=1, max_size=4), st.sampled_from(";\t|"))
def test_no_cell_is_a_formula_wherever_a_spreadsheet_splits_the_line(tmp_path_factory, texts, separator):
    """By commas and quotes as they are written, or by another country's separator in the midst of a text."""
    path = tmp_path_factory.getbasetemp() / "any.csv"
    artifacts.write_csv(path, pd.DataFrame({"first": "x", "text": texts}))
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + len(texts)
    cells = [cell for line in lines for cell in line.split(separator)]
    cells += [cell for row in csv.reader(lines) for cell in row]
    assert not [cell for cell in cells if cell.lstrip(' \t"').startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tables_are_written_in_one_place(path):
    names = [
        name for name, _ in calls(path) if name.rpartition(".")[2] in ("to_csv", "to_html", "to_latex", "to_excel")
    ]
    assert len(names) == (path.name == "files.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_stage_reads_a_table_that_carries_no_checksum(path):
    """But for the paper's numbers, which come with the code."""
    names = [
        name
        for name, _ in calls(path)
        if name.rpartition(".")[2] in ("read_csv", "read_parquet", "read_json") and name != "artifacts.read_json"
    ]
    assert len(names) == (path.parts[-2:] == ("report", "tables.py"))


HOSTILE = "\\input{/etc/passwd} ^^5cinput $x$ ~ <script>alert(1)</script> ![a](http://a/b) | a\nb \u202e"


def test_a_text_in_a_table_is_text_in_latex_and_markdown():
    cells = [".9"]
    table = table_format.Table(["Row"], ["AUC"], [([HOSTILE], cells)], [(HOSTILE, 1)], [HOSTILE])
    latex, markdown = table_format.format_latex(table), table_format.format_markdown(table)
    body = latex.replace(r"\textbackslash{}", "").replace(r"\textasciicircum{}", "").replace(r"\$", "")
    assert not re.search(r"\\input|\^|\$", body.partition("\n%")[0])
    assert all(line.startswith("%") for line in latex.partition("\\end{tabular}\n")[2].splitlines())
    assert not re.search(r"(?<!\\)[<\[]", re.sub("</?u>", "", markdown))
    assert len(markdown.splitlines()) == 5  # heads, rule, a row, and a note below an empty line


def test_a_text_in_a_page_is_text(tmp_path):
    table = table_format.Table(["Row"], ["AUC"], [([HOSTILE], [".9"])], [(HOSTILE, 1)], [HOSTILE])
    page = render("report/tables.html.j2", title='"><script>', table=table)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2 + 4
    templates = [path.read_text() for path in (ROOT / "slpd_core").rglob("*.html.j2")]
    assert sum("<!DOCTYPE html>" in text for text in templates) > 1
    for text in templates:
        assert ("<!DOCTYPE html>" in text) == ("default-src 'none'" in text or 'content="{{ policy }}"' in text)
        assert not re.search(r"\|\s*safe\b|autoescape false|<script", text)


# Settings


def test_settings_are_plain_values(tmp_path):
    """YAML that builds objects is refused by Snakemake, an unknown key by the sections."""
    (tmp_path / "a.yaml").write_text(f"cohort: !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load((tmp_path / "a.yaml").read_text())
    arguments = ["-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    done = subprocess.run([sys.executable, *arguments, "--configfile", str(tmp_path / "a.yaml")], capture_output=True)
    assert done.returncode
    assert b"Config file is not valid" in done.stderr + done.stdout
    assert not (tmp_path / "ran").exists()
    values = read_shipped()
    with pytest.raises(ValueError, match=r"tissue\.hook: unknown key; see config"):
        config.load(values | {"tissue": values["tissue"] | {"hook": "x"}})


@pytest.mark.parametrize("key", ["masks_dir", "model_kwargs"])
@pytest.mark.parametrize("text", ["- &a0 [x, x, x, x, x, x, x, x]\n", "- &a0 [*a0]\n"], ids=["often", "itself"])
def test_settings_do_not_unfold_without_end(key, text):
    """A billion texts, or a list that holds itself, in a few lines."""
    for level in range(1, 10):
        text += f"- &a{level} [{', '.join([f'*a{level - 1}'] * 8)}]\n"
    values = read_shipped()
    section = values["tissue" if key == "masks_dir" else "patch_encoder"]
    section[key] = yaml.safe_load(text) if key == "masks_dir" else {"depth": yaml.safe_load(text)}
    with pytest.raises(ValueError, match="settings: more than 100,000 values"):
        config.load(values)


# The network


OFFLINE = """
import socket, sys
def refuse(*arguments, **_):
    raise SystemExit(f"the network: {arguments}")
class Refused(socket.socket):
    connect = connect_ex = bind = sendto = refuse
socket.socket, socket.getaddrinfo, socket.create_connection = Refused, refuse, refuse
import pkgutil
from pathlib import Path
import numpy as np, yaml
import slpd_core
for module in pkgutil.walk_packages(slpd_core.__path__, "slpd_core."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
from slpd_core import artifacts, config, runtime
from slpd_core.pretraining import patch_encoder
from slpd_core.slides import regions, tissue, tokens
from slpd_core.wsi.writer import write_slide
folder, settings = Path(sys.argv[1]), config.load(yaml.safe_load(Path("config.yaml").read_text()))
pixels = np.full((640, 640, 3), 244, np.uint8)
pixels[:576, :576] = (200, 120, 170)
write_slide(folder / "a.tiff", pixels, 0.5)
small = {"source": "random", "name": "vit_tiny_patch16_224", "patch_px": 256, "input_px": 32}
small |= {"model_kwargs": {"depth": 1}}
section = config.PatchEncoderConfig(**settings.patch_encoder.cohort_encoder.model_dump() | small)
patch_encoder.run(weights_path=folder / "w.safetensors", section=section, seed=1)
found, _ = tissue.segment_file("a", folder / "a.tiff")
kept = regions.select_regions(found, size_px=512)
artifacts.write_regions(folder / "r.h5", kept, artifacts.provenance("regions", 1, {}))
tokens.run(
    slide_paths=[folder / "a.tiff"], regions_paths=[folder / "r.h5"], weights_path=folder / "w.safetensors",
    tokens_paths=[folder / "t.h5"], encoded_paths=[folder / "e.h5"], section=settings.tokens, device="cpu",
    quarantine=(),
)
print(artifacts.read_tokens(folder / "t.h5")[0].tokens.shape)
"""


def test_without_a_name_of_the_hub_nothing_reaches_for_the_network(tmp_path):
    """Every module imported, and a slide brought from pixels to tokens, where a socket ends the process."""
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "(1, 4, 192)\n", done.stderr


def test_only_weights_by_name_and_nodes_that_meet_use_the_network():
    """The hub's client has its one home (tests/test_architecture.py); no module has another client."""
    clients = ("socket", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "boto3", "fsspec", "ssl")
    found = {
        path.relative_to(ROOT / "slpd_core").as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [own.name for own in node.names])
        if name and name.split(".")[0] in clients
    }
    assert found == {"ssl/slurm.py"}


# The folder that all users of a machine write to


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_file_that_another_put_there_is_not_followed(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    path, elsewhere = tmp_path / "slpd-gpu-0.lock", tmp_path / "elsewhere"
    if kind == "link":
        path.symlink_to(elsewhere)
        with pytest.raises(RuntimeError, match=r"slpd-gpu-0\.lock: not a lock file .*; remove it"):
            gpus._lock_file("0")
    else:
        os.mkfifo(path)
        gpus._lock_file("0").close()  # it would have waited for a writer
    assert not elsewhere.exists()


# The packages


@pytest.fixture
def audit():
    """The script of continuous integration."""
    return runpy.run_path(str(ROOT / ".ci" / "audit"))


def test_a_vulnerable_package_fails_the_audit(audit):
    known = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    packages = [known, {"name": "b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "not found"}]
    said = ["vulnerable: a 1: CVE-1, fixed in 2", "not audited: 1 of 3 packages, unknown to the service (c, ...)"]
    assert audit["verdict"](packages) == (1, [*said, "audited: 2 packages"])
    assert audit["verdict"](packages[1:2]) == (0, ["audited: 1 packages"])


def test_an_audit_that_cannot_be_made_says_so(audit, monkeypatch, capsys):
    monkeypatch.setitem(audit["main"].__globals__, "ask", lambda _: "no route to host")
    assert audit["main"]() == 0
    assert capsys.readouterr().out == "not audited: no route to host\n"


def test_every_promise_has_its_test():
    """Each test and file of tests that SECURITY.md names is there."""
    text = (ROOT / "SECURITY.md").read_text()
    tests = {
        path.relative_to(ROOT / "tests").as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert {*re.findall(r"`((?:\w+/)?test_\w+\.py)`", text)} <= {*tests}
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in content for content in tests.values()), name
