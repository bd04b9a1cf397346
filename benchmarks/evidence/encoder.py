"""The patch encoder of the experiment: a small ViT trained by stage one on tiles that no slide is composed of."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.evidence.tiles import list_tiles, quarter, read_tile
from slpd_core.encoders import vit
from slpd_core.encoders.precision import choose_precision
from slpd_core.encoders.vit_inference import FrozenEncoder, optimize_for_inference
from slpd_core.pretraining.dino_objective import DinoObjective
from slpd_core.pretraining.patch_augmentations import PatchCropParams
from slpd_core.pretraining.patch_dataset import PatchDataset
from slpd_core.pretraining.patch_networks import VitParams
from slpd_core.pretraining.stage_one import StageOne
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.trainer import fit

PATCH_PX = 112
VIT = VitParams("vit_tiny_patch16_224", PATCH_PX, {"depth": 6}, out_dim=4096, hidden_dim=512, drop_path=0.0, half=True)
CROPS = PatchCropParams(
    n_local_crops=2, global_crop_px=96, local_crop_px=48, global_crops_scale=(0.4, 1.0), local_crops_scale=(0.1, 0.4)
)
RECIPE = Recipe(epochs=8, batch_size=64, base_lr=2e-3, warmup_epochs=1, teacher_momentum=0.99)
BATCH = 64


class Patches(PatchDataset):
    """Patches in memory, uint8 (n, P, P, 3), as stage one takes them."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = torch.from_numpy(pixels)
        self.fingerprint = str(len(pixels))

    def __len__(self) -> int:
        return len(self._pixels)

    def get(self, rows: np.ndarray) -> torch.Tensor:
        """Return patches, (n, P, P, 3)."""
        return self._pixels[rows]


def train_encoder(held_out: Path, path: Path, *, crops: PatchCropParams = CROPS, recipe: Recipe = RECIPE) -> None:
    """Train on two quarters of each held-out tile and write the teacher."""
    paths = [each for of_phenotype in list_tiles(held_out).values() for each in of_phenotype]
    patches = Patches(np.concatenate([quarter(read_tile(each)[None])[0, ::3] for each in paths]))
    stage = StageOne.create(patches, VIT, seed=0, crops=crops, objective=DinoObjective(), recipe=recipe)
    run_config = {"crops": json.dumps(asdict(crops)), "recipe": json.dumps(asdict(recipe)), "n": len(patches)}
    path.parent.mkdir(parents=True, exist_ok=True)
    fit(stage, Checkpoint(path.with_suffix(".pt"), run_config)).to_csv(path.with_suffix(".csv"), index=False)
    save_file({name: tensor.contiguous() for name, tensor in stage.networks.teacher.encoder.state_dict().items()}, path)
    path.with_suffix(".pt").unlink(missing_ok=True)


def load_encoder(path: Path, device: str = "cpu") -> FrozenEncoder:
    """Load the encoder that `train_encoder` wrote, in the precision that is fast here."""
    model = vit.build_vit(VIT.name, VIT.input_px, VIT.model_kwargs)
    model.load_state_dict(load_file(path))
    precision = choose_precision("auto", device, model.num_features)
    return optimize_for_inference(model.eval(), mean=VIT.mean, std=VIT.std, precision=precision, device=device)


@torch.inference_mode()
def encode(model: FrozenEncoder, patches: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Encode patches (n, PATCH_PX, PATCH_PX, 3), uint8, as float16 (n, D)."""
    batches = torch.from_numpy(np.ascontiguousarray(patches)).split(BATCH)
    return torch.cat([model(batch.to(device)).half().cpu() for batch in batches]).numpy()
