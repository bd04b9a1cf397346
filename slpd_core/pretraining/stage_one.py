"""Stage one: DINO pretraining of the patch encoder on patches sampled from the cohort (Caron et al., ICCV 2021)."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core import artifacts
from slpd_core.encoders import vit
from slpd_core.encoders.pretrained_weights import HALF_RGB
from slpd_core.pretraining.patch_augmentations import PatchCropParams, sample_patch_crops
from slpd_core.runtime import generator
from slpd_core.ssl import distributed, losses
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.losses import LogitFactors
from slpd_core.ssl.monitoring import effective_rank, fixed_sample
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import Network, StudentTeacher, autocast
from slpd_core.ssl.trainer import fit, shuffled_batches

VERSION = 3
WATCHED_PATCHES = 256  # whose tokens the effective rank is of


class PatchDataset:
    """The sampled patches of all slides as one array, read from disk when asked for.

    Args:
        paths: Of the slides' patches.

    Raises:
        ValueError: No slide has any.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        read = [artifacts.read_patches(path) for path in paths]
        self._arrays = [array for array, _ in read]
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])
        self.fingerprint = artifacts.fingerprint(*(meta["fingerprint"] for _, meta in read), *map(str, self._starts))
        if not len(self):
            raise ValueError("no slide has patches to train the patch encoder on; the ledger's logs say why")

    def __len__(self) -> int:
        """Return the number of patches."""
        return int(self._starts[-1])

    def get(self, rows: np.ndarray) -> Tensor:
        """Read patches.

        Args:
            rows: int64 (n,).

        Returns:
            uint8 (n, P, P, 3).
        """
        slides = np.searchsorted(self._starts, rows, side="right") - 1
        patches = [self._arrays[slide][row - self._starts[slide]] for slide, row in zip(slides, rows, strict=True)]
        return torch.from_numpy(np.stack(patches))


@dataclass(frozen=True)
class VitParams:
    """A ViT of timm's with a projection head, and how its pixels are normalized.

    Attributes:
        name: Of the architecture.
        input_px: Side of the images that positions are learned for.
        model_kwargs: Of the architecture.
        mean: Of RGB in 0..1.
        std: Of RGB in 0..1.
        drop_path: Rate of stochastic depth, of the student alone.
        hidden_dim: Of the head's MLP.
        bottleneck_dim: Of the head.
        out_dim: Outputs of the head.
        half: Whether to compute in bfloat16.
    """

    name: str
    input_px: int
    model_kwargs: dict[str, Any]
    mean: tuple[float, float, float] = HALF_RGB
    std: tuple[float, float, float] = HALF_RGB
    drop_path: float = 0.1
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    out_dim: int = 65536
    half: bool = False

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize images as the encoder takes them.

        Args:
            pixels: (..., 3, h, w), RGB in 0..1.

        Returns:
            The same shape.
        """
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def build_patch_student_teacher(params: VitParams, *, seed: int, device: str = "cpu") -> StudentTeacher:
    """Build student and teacher with random weights.

    Args:
        params: Of encoder and head.
        seed: Alone decides the weights.
        device: cpu or cuda.

    Returns:
        Both, equal at the start.
    """

    def build(drop_path: float) -> Network:
        encoder = vit.build_vit(
            params.name, params.input_px, params.model_kwargs, drop_path_rate=drop_path, dynamic_img_size=True
        )
        if params.half and device == "cpu":  # torch's fused attention is five times slower there
            for part in (part for part in encoder.modules() if hasattr(part, "fused_attn")):
                part.fused_attn = False
        head = ProjectionHead(encoder.num_features, params.hidden_dim, params.bottleneck_dim, params.out_dim)
        return Network(encoder, head)

    dtype = torch.bfloat16 if params.half else torch.float32
    return StudentTeacher.create(
        build, ("self",), _torch_seed(seed, "weights"), device, drop_path=params.drop_path, dtype=dtype
    )


def _torch_seed(seed: int, *keys: str | int) -> int:
    """Derive a seed for torch from the run's seed and the use."""
    return int(generator(seed, "dino_patches", *keys).integers(1 << 62))


@dataclass(frozen=True)
class DinoObjective:
    """The objective of DINO, with KoLeo as in DINOv2.

    Attributes:
        student_temperature: τ_s.
        teacher_temperature: τ_t.
        center_momentum: Of the moving average.
        koleo_weight: Of KoLeo, which keeps the tokens of different patches apart.
    """

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9
    koleo_weight: float = 0.1

    def backward(self, networks: StudentTeacher, batch: list[Tensor]) -> dict[str, Tensor]:
        """Compute the loss of a batch, backpropagate into the student and update the center.

        Args:
            networks: Student and teacher; gradients are added to the student's.
            batch: Global crops (G, B, 3, g, g), local crops (n, B, 3, l, l).

        Returns:
            `loss`, `loss_self` (DINO, eq. 3), `koleo` and `teacher_entropy`, each ().
        """
        student, teacher, (G, B) = networks.student, networks.teacher, batch[0].shape[:2]
        views = [view.flatten(0, 1) for view in batch]
        with autocast(networks.dtype, networks.device):
            z = torch.cat([student.encoder(view) for view in views])
            crops = student.head.bottleneck(z)
            with torch.no_grad():
                targets = teacher.head.bottleneck(teacher.encoder(views[0]))
        crops, targets = (rows.view(-1, B, rows.shape[1]).transpose(0, 1) for rows in (crops, targets))
        exists, last_layer, center = targets.new_ones(B, G), teacher.head.normalized_weight(), networks.centers["self"]
        networks.centers["self"] = losses.update_center(center, targets, last_layer, exists, self.center_momentum)
        self_loss, _, entropy = losses.chunked_cross_entropy(
            LogitFactors(crops, student.head.normalized_weight(), self.student_temperature),
            LogitFactors(targets, last_layer, self.teacher_temperature),
            center.expand(G, -1),
            losses.cross_view_weights(G, crops.shape[1]).to(crops).expand(B, -1, -1) / B,
            networks.dtype,
        )
        koleo = losses.koleo_of_crops(z[: G * B], G)
        loss = self_loss + self.koleo_weight * koleo
        networks.scaler.scale(loss).backward()
        metrics = {"loss": loss, "loss_self": self_loss, "koleo": koleo}
        metrics["teacher_entropy"] = losses.masked_mean(entropy, exists)
        return {name: value.detach() for name, value in metrics.items()}


def train(
    patches_paths: Sequence[Path], vit_params: VitParams, checkpoint_path: Path, **arguments: Any
) -> tuple[StudentTeacher, pd.DataFrame]:
    """Train student and teacher, from the checkpoint on if there is one; leaves one after each epoch.

    Args:
        patches_paths: Of the slides' patches.
        vit_params: Encoder and head.
        checkpoint_path: Of the run.
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
    return stage.networks, fit(stage, Checkpoint(checkpoint_path, run_config))


@dataclass
class StageOne:
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

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Do nothing.

        Args:
            epoch: From 0.

        Returns:
            No columns.
        """
        return {}

    def shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draw the batches of an epoch.

        Args:
            epoch: From 0.

        Returns:
            Rows of each step, int64 (batch_size,).
        """
        rng = generator(self.seed, "dino_patches", "batches", epoch)
        return shuffled_batches(len(self), self.recipe.batch_size, rng)

    def load(self, epoch: int, batches: list[np.ndarray], first: int) -> Generator[list[Tensor]]:
        """Read patches and sample crops, batch by batch.

        Args:
            epoch: From 0.
            batches: Rows of each step.
            first: Step to begin with.

        Yields:
            Normalized crops of this process's share of each batch.
        """
        with closing(read_ahead(self.patches, batches[first:])) as reader:
            for i, pixels in enumerate(reader, start=first):
                n, rng = len(batches[i]), generator(self.seed, "dino_patches", "crops", epoch, i)
                rows = distributed.local_shard(np.arange(n))
                views = sample_patch_crops(pixels.to(self.networks.device), rows, n, self.crops, rng)
                yield [self.vit_params.normalize(view) for view in views]

    def end_epoch(self) -> dict[str, float]:
        """Measure the teacher.

        Returns:
            The effective rank of some patches' tokens.
        """
        pixels = self.patches.get(fixed_sample(len(self.patches), WATCHED_PATCHES))
        tokens = embed_patches(self.networks, pixels, self.vit_params, self.crops.global_crop_px)
        return {"effective_rank": effective_rank(tokens)}

    def torch_seed(self, *keys: str | int) -> int:
        """Derive a seed for torch from the run's seed and the use.

        Args:
            keys: The use.

        Returns:
            The seed.
        """
        return _torch_seed(self.seed, *keys)

    def describe(self, rows: np.ndarray) -> str:
        """Name nothing: a batch has patches of many slides.

        Args:
            rows: Of the batch.

        Returns:
            "".
        """
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Collect nothing: networks and metrics are all that a resumed run needs.

        Returns:
            An empty state.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing.

        Args:
            state: As `state_dict` returned it.
        """


def read_ahead(patches: PatchDataset, batches: list[np.ndarray]) -> Generator[Tensor]:
    """Read batches, the next one while the last is worked on.

    Args:
        patches: On disk.
        batches: Rows of each.

    Yields:
        This process's share of each batch, uint8 (b, P, P, 3).
    """
    with ThreadPoolExecutor(1) as thread:
        reading = [thread.submit(patches.get, distributed.local_shard(batch)) for batch in batches[:2]]
        for i in range(len(batches)):
            yield reading.pop(0).result()
            if i + 2 < len(batches):
                reading.append(thread.submit(patches.get, distributed.local_shard(batches[i + 2])))


@torch.inference_mode()
def embed_patches(
    networks: StudentTeacher, pixels: Tensor, params: VitParams, side_px: int, batch_size: int = 32
) -> np.ndarray:
    """Encode patches by the teacher.

    Args:
        networks: The teacher.
        pixels: uint8 (n, P, P, 3).
        params: Say how pixels are normalized.
        side_px: That patches are resized to.
        batch_size: Patches per pass.

    Returns:
        float32 (n, token_dim).
    """
    tokens = []
    for batch in pixels.split(batch_size):
        floats = batch.to(networks.device).permute(0, 3, 1, 2).float() / 255
        floats = F.interpolate(floats, (side_px, side_px), mode="bilinear", antialias=True)
        tokens.append(networks.teacher.encoder(params.normalize(floats)).cpu())
    return torch.cat(tokens).numpy()
