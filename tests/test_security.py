"""Files, names and settings from elsewhere are data: nothing they hold is run, and nothing they state is believed."""

import ast
import json
import os
import re
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from slpd_core import config, store
from slpd_core.dino.checkpoint import Checkpoint
from slpd_core.slides import vit_weights

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
    return config.load(yaml.safe_load((ROOT / "config.yaml").read_text()))


def calls(path: Path):
    """(dotted name, {argument: source}) of every call in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {own.arg: ast.unparse(own.value) for own in node.keywords}


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


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_weights_or_a_checkpoint_is_not_run(tmp_path, protocol, zipped):
    content = {name: Harmful(tmp_path / "ran") for name in ("made_by", "history", "more", "networks")}
    path = tmp_path / "a.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"patch_encoder\.weights: .*a\.pth: not a whole file of tensors"):
        store.read_state_dict(path, "patch_encoder.weights")
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


@pytest.mark.parametrize(
    ("name", "write", "what"),
    [
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
        store.read_state_dict(tmp_path / name, "patch_encoder.weights")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"checkpoint_path": "evil.pth"}, "'checkpoint_path' is no part of an architecture"),
        ({"pretrained": True, "pretrained_cfg": {"url": "http://127.0.0.1:9/a.pth"}}, "'pretrained' is no part"),
        ({"pretrained_cfg_overlay": {"file": "evil.pth"}}, "'pretrained_cfg_overlay' is no part"),
        ({"depth": 10**9}, r"depth: 1000000000 is no number of blocks within 1-\d+"),
    ],
)
def test_the_config_of_a_downloaded_model_reads_and_fetches_nothing(tmp_path, settings, arguments, what):
    described = {"architecture": "vit_tiny_patch16_224", "model_args": arguments, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    changes = {"source": "timm", "name": f"local-dir:{tmp_path}"}
    section = config.PatchEncoder(**settings.patch_encoder.own.model_dump() | changes)
    with pytest.raises(ValueError, match=rf"patch_encoder\.arguments.*{what}"):
        vit_weights.of_timm(section)


def test_a_text_nested_without_end_is_a_broken_file(tmp_path, settings):
    path = tmp_path / "config.json"
    path.write_text("[" * 10**5)
    for read in (store.read_areas, store.read_tissue):
        with pytest.raises(ValueError, match=r"config\.json: "):
            read(path)
    changes = {"source": "timm", "name": f"local-dir:{tmp_path}"}
    with pytest.raises(ValueError, match="names no timm architecture"):
        vit_weights.of_timm(config.PatchEncoder(**settings.patch_encoder.own.model_dump() | changes))


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
        store.read_regions(path)
