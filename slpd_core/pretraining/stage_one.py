"""Stage one: DINO pretraining of the patch encoder on patches sampled from the cohort (Caron et al., ICCV 2021)."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from slpd_core.pretraining.dino_objective import DinoObjective
from slpd_core.pretraining.patch_augmentations import PatchCropParams, sample_patch_crops
from slpd_core.pretraining.patch_dataset import PatchDataset, read_ahead
from slpd_core.pretraining.patch_networks import (
    VitParams,
    build_patch_student_teacher,
    embed_patches,
    patch_torch_seed,
)
from slpd_core.runtime import generator
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.monitoring import effective_rank, fixed_sample
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.stage import PretrainingStage, shuffled_batches
from slpd_core.ssl.student_teacher import StudentTeacher
from slpd_core.ssl.trainer import fit

VERSION = 3
WATCHED_PATCHES = 256  # whose tokens the effective rank is of


def train(
    patches_paths: Sequence[Path],
    vit_params: VitParams,
    checkpoint_path: Path,
    *,
    tracker: str | None = None,
    **arguments: Any,
) -> tuple[StudentTeacher, pd.DataFrame]:
    """Train student and teacher, from the checkpoint on if there is one; leaves one after each epoch.

    Args:
        patches_paths: Of the slides' patches.
        vit_params: Encoder and head.
        checkpoint_path: Of the run.
        tracker: wandb or mlflow, which gets the history too.
        arguments: Of `StageOne.create`.

    Returns:
        Student and teacher, and one history row per epoch.

    Raises:
        ValueError: There are no patches, or a batch does not divide evenly among the processes.
        RuntimeError: A loss is not finite.
    """
    patches = PatchDataset(patches_paths)
    stage = StageOne.create(patches, vit_params, **arguments)
    params = (vit_params, stage.crops, stage.objective, stage.recipe)
    run_config = {name: value for part in params for name, value in asdict(part).items() if name != "half"}
    run_config |= {"seed": stage.seed, "patches": patches.fingerprint, "version": VERSION}
    return stage.networks, fit(stage, Checkpoint(checkpoint_path, run_config), tracker)


@dataclass
class StageOne(PretrainingStage):
    """Stage one as the trainer runs it."""

    unit: ClassVar[str] = "patches"
    config_key: ClassVar[str] = "patch_encoder.dino"

    networks: StudentTeacher
    patches: PatchDataset
    vit_params: VitParams
    crops: PatchCropParams
    objective: DinoObjective
    recipe: Recipe
    seed: int

    @classmethod
    def create(
        cls,
        patches: PatchDataset,
        vit_params: VitParams,
        *,
        seed: int,
        device: str = "cpu",
        crops: PatchCropParams | None = None,
        objective: DinoObjective | None = None,
        recipe: Recipe | None = None,
    ) -> "StageOne":
        """Build student and teacher.

        Args:
            patches: Of all slides.
            vit_params: Encoder and head.
            seed: Alone decides all that is random.
            device: cpu or cuda.
            crops: Of patches.
            objective: Losses.
            recipe: Epochs, batch size and schedules.

        Returns:
            The stage, before its first epoch.
        """
        networks = build_patch_student_teacher(vit_params, seed=seed, device=device)
        crops, objective, recipe = crops or PatchCropParams(), objective or DinoObjective(), recipe or Recipe()
        return cls(networks, patches, vit_params, crops, objective, recipe, seed)

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.patches)

    def shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draw the batches of an epoch."""
        rng = generator(self.seed, "dino_patches", "batches", epoch)
        return shuffled_batches(len(self), self.recipe.batch_size, rng)

    def load(self, epoch: int, batches: list[np.ndarray], first: int) -> Generator[list[Tensor]]:
        """Read patches and sample crops, normalized, of this process's share of each batch."""
        with closing(read_ahead(self.patches, batches[first:])) as reader:
            for i, pixels in enumerate(reader, start=first):
                n, rng = len(batches[i]), generator(self.seed, "dino_patches", "crops", epoch, i)
                rows = distributed.local_shard(np.arange(n))
                views = sample_patch_crops(pixels.to(self.networks.device), rows, n, self.crops, rng)
                yield [self.vit_params.normalize(view) for view in views]

    def end_epoch(self) -> dict[str, float]:
        """Measure the effective rank of some patches' tokens, of the teacher."""
        pixels = self.patches.get(fixed_sample(len(self.patches), WATCHED_PATCHES))
        tokens = embed_patches(self.networks, pixels, self.vit_params, self.crops.global_crop_px)
        return {"effective_rank": effective_rank(tokens)}

    def torch_seed(self, *keys: str | int) -> int:
        """Derive a seed for torch."""
        return patch_torch_seed(self.seed, *keys)
