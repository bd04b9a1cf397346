"""Each tool's own reader reads an export, in environments of their own: SLPD_READERS=PYTHON[:PYTHON] names them."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.export.conftest import DIM, LEVEL0
from tests.export.test_h5ad import write

READERS = [name for name in os.environ.get("SLPD_READERS", "").split(os.pathsep) if name]


def read_by_tools(folder: Path, slide: str) -> dict:
    """What the tools of all environments read, by tool."""
    read = {}
    for python in READERS:
        command = [python, str(Path(__file__).with_name("foreign_readers.py")), str(folder), slide]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        read |= json.loads(done.stdout.splitlines()[-1])
    return read


@pytest.mark.slow
@pytest.mark.skipif(not READERS, reason="SLPD_READERS names no environment of other tools")
def test_the_tools_own_readers_read_what_the_artifacts_hold(tables, planted):
    folder = tables("trident", "hs2p", "torchmil", "slide2vec")
    write(planted, to=folder / "h5ad" / "slpd.h5ad")
    read = read_by_tools(folder, "a")
    tokens, corners = planted.tokens["a"].reshape(-1, DIM).astype(np.float32), planted.patch_corners("a")
    embeddings, regions = planted.embeddings["slpd"]["a"], planted.regions["a"].coords
    print(f"read by {', '.join(read)}")
    assert read, "none of the tools is there"
    if "hs2p" in read:
        assert read["hs2p"] == {"regions": sorted(regions.tolist()), "patches": sorted(corners.tolist())}
    if "torchmil" in read:
        for name, vectors, at in (("slpd", embeddings, regions), ("patch_tokens", tokens, corners)):
            bag = read["torchmil"][name]
            np.testing.assert_array_equal(np.float32(bag["X"]), vectors)
            assert (bag["coords"], bag["Y"]) == (at.tolist(), [1])
        np.testing.assert_array_equal(np.float32(read["torchmil"]["trident"]), tokens)
    if "anndata" in read:
        of_run = read["anndata"]["slpd"]
        np.testing.assert_array_equal(np.float32(of_run["X"]), embeddings)
        assert of_run["obs"]["prototype"] == ["0", "10", "2"]
        assert [*map(list, zip(of_run["obs"]["x"], of_run["obs"]["y"], strict=True))] == regions.tolist()
        assert of_run["spatial"] == (regions + LEVEL0 / 2).tolist()
        np.testing.assert_allclose(of_run["obs"]["attention_label_vit_wsi"], [0.3, 0.45, 0.25])
    if "wsidata" in read:
        np.testing.assert_array_equal(np.float32(read["wsidata"]["slpd"]), embeddings)
    if "soma" in read:
        np.testing.assert_array_equal(np.float32(read["soma"]["slpd"]), embeddings)
        np.testing.assert_array_equal(np.float32(read["soma"]["patch_tokens"]), planted.tokens["a"])
