"""Stage one: DINO pretraining of the patch encoder on patches sampled from the cohort (Caron et al., ICCV 2021)."""

from collections.abc import Generator
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

from slpd_core import artifacts, config
from slpd_core.encoders import vit
from slpd_core.pretraining.patch_augmentations import sample_patch_crops
from slpd_core.runtime import generator
from slpd_core.ssl import distributed, losses
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.losses import LogitFactors
from slpd_core.ssl.monitoring import effective_rank, fixed_sample
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import Network, StudentTeacher, move_center
from slpd_core.ssl.trainer import fit, shuffled_batches

VERSION = 3
METRICS = ("loss", "loss_self", "koleo", "teacher_entropy")  # of history.csv: the means of an epoch's steps
WATCHED_PATCHES = 256  # whose tokens the effective rank is of


class PatchDataset:
    """The sampled patches of all slides as one array, read from disk when asked for."""

    def __init__(self, paths: list[Path]) -> None:
        read = [artifacts.read_patches(path) for path in paths]
        self._arrays = [array for array, _ in read]
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])
        self.fingerprint = artifacts.fingerprint(*(meta["fingerprint"] for _, meta in read), *map(str, self._starts))
        if not len(self):
            raise ValueError("no slide has patches to train the patch encoder on; the ledger's logs say why")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def get(self, rows: np.ndarray) -> Tensor:
        """uint8 (rows, P, P, 3)."""
        slides = np.searchsorted(self._starts, rows, side="right") - 1
        taken = [self._arrays[slide][row - self._starts[slide]] for slide, row in zip(slides, rows, strict=True)]
        return torch.from_numpy(np.stack(taken))


@dataclass(frozen=True)
class Plan:
    """What is trained, how.

    name, model_kwargs: of the encoder, a ViT of timm's with positions for pictures of input_px.
    mean, std: of RGB in 0..1. half: whether the networks may compute in bfloat16.
    """

    name: str
    input_px: int
    model_kwargs: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    recipe: config.StageOneConfig
    seed: int
    device: str
    half: bool

    def torch_seed(self, *keys: str | int) -> int:
        """A seed for torch that depends on what it is for."""
        return int(generator(self.seed, "dino_patches", *keys).integers(1 << 62))

    def normalise(self, pixels: Tensor) -> Tensor:
        """RGB in 0..1, (n, 3, h, w), as the encoder takes it."""
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def start(self) -> StudentTeacher:
        """Student and teacher with heads."""
        recipe = self.recipe

        def build(drop_path: float) -> Network:
            encoder = vit.build_vit(
                self.name, self.input_px, self.model_kwargs, drop_path_rate=drop_path, dynamic_img_size=True
            )
            if self.half and self.device == "cpu":  # torch's fused attention is five times slower there
                for part in (part for part in encoder.modules() if hasattr(part, "fused_attn")):
                    part.fused_attn = False
            head = ProjectionHead(encoder.num_features, recipe.hidden_dim, recipe.bottleneck_dim, recipe.out_dim)
            return Network(encoder, head)

        return StudentTeacher.create(
            build, ("self",), self.torch_seed("weights"), self.device, drop_path=recipe.drop_path
        )


def step(networks: StudentTeacher, views: list[Tensor], plan: Plan) -> Tensor:
    """Give the student the gradients of a batch's loss, and move the center; gives MEANS of the batch, (4,).

    The loss is DINO's own term and, weighted, KoLeo of the student's global crops, crop by crop (as in DINOv2).

    views: global crops (G * B, 3, g, g), local crops (n * B, 3, l, l), crop after crop.
    """
    recipe, G, (student, teacher) = plan.recipe, plan.recipe.n_global_crops, (networks.student, networks.teacher)
    B = len(views[0]) // G
    with torch.autocast(plan.device, torch.bfloat16, enabled=plan.half):
        embeddings = torch.cat([student.encoder(view) for view in views])
        crops = student.head.bottleneck(embeddings)
        with torch.no_grad():
            wanted = teacher.head.bottleneck(teacher.encoder(views[0]))
    crops, wanted = (rows.view(-1, B, rows.shape[1]).transpose(0, 1) for rows in (crops, wanted))
    counted, outputs = wanted.new_ones(B, G), teacher.head.normalized_weight()
    center = move_center(networks, "self", wanted, outputs, counted, recipe.center_momentum)
    own, _, entropy = losses.chunked_cross_entropy(
        LogitFactors(crops, student.head.normalized_weight(), recipe.student_temperature),
        LogitFactors(wanted, outputs, recipe.teacher_temperature),
        center.expand(G, -1),
        losses.cross_view_weights(G, crops.shape[1]).to(crops).expand(B, -1, -1) / B,
        torch.bfloat16 if plan.half else torch.float32,
    )
    koleo = losses.koleo_of_crops(embeddings[: G * B], G)
    loss = own + recipe.koleo_weight * koleo
    loss.backward()
    return torch.stack([loss, own, koleo, losses.masked_mean(entropy, counted)]).detach()


@dataclass
class StageOne:
    """Stage one as the trainer runs it."""

    unit: ClassVar[str] = "patches"
    config_key: ClassVar[str] = "patch_encoder.dino"

    networks: StudentTeacher
    patches: PatchDataset
    plan: Plan
    recipe: Recipe

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.patches)

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Do nothing."""
        return {}

    def shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draw the batches of an epoch."""
        rng = generator(self.plan.seed, "dino_patches", "batches", epoch)
        return shuffled_batches(len(self), self.recipe.batch_size, rng)

    def load(self, epoch: int, batches: list[np.ndarray], first: int) -> Generator[list[Tensor]]:
        """Yield the crops of each batch, normalized."""
        with closing(read_ahead(self.patches, batches[first:])) as reader:
            for i, pixels in enumerate(reader, start=first):
                n, rng = len(batches[i]), generator(self.plan.seed, "dino_patches", "crops", epoch, i)
                rows = distributed.local_shard(np.arange(n))
                views = sample_patch_crops(pixels.to(self.networks.device), rows, n, self.plan.recipe, rng)
                yield [self.plan.normalise(view) for view in views]

    def backward(self, batch: list[Tensor]) -> dict[str, Tensor]:
        """Give the student the gradients of the loss."""
        return dict(zip(METRICS, step(self.networks, batch, self.plan), strict=True))

    def end_epoch(self) -> dict[str, float]:
        """Return the effective rank of some patches' tokens."""
        watched = self.patches.get(fixed_sample(len(self.patches), WATCHED_PATCHES))
        tokens = embed_patches(self.networks.teacher.encoder, watched, self.plan, self.plan.recipe.global_crop_px)
        return {"effective_rank": effective_rank(tokens)}

    def torch_seed(self, *keys: str | int) -> int:
        """Derive a seed for torch."""
        return self.plan.torch_seed(*keys)

    def describe(self, rows: np.ndarray) -> str:
        """Return nothing: a batch has patches of many slides."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: networks and metrics are all that goes on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def read_ahead(patches: PatchDataset, steps: list[np.ndarray]) -> Generator[Tensor]:
    """This process's share of each batch, uint8 (b, P, P, 3), the next one read while the last is worked on."""
    with ThreadPoolExecutor(1) as thread:
        reading = [thread.submit(patches.get, distributed.local_shard(batch)) for batch in steps[:2]]
        for number in range(len(steps)):
            yield reading.pop(0).result()
            if number + 2 < len(steps):
                reading.append(thread.submit(patches.get, distributed.local_shard(steps[number + 2])))


@torch.inference_mode()
def embed_patches(encoder: Any, pixels: Tensor, plan: Plan, side_px: int, batch_size: int = 32) -> np.ndarray:
    """Tokens of patches, uint8 (n, P, P, 3), brought to `side_px`: float32 (n, token_dim)."""
    found = []
    for batch in pixels.split(batch_size):
        floats = batch.to(plan.device).permute(0, 3, 1, 2).float() / 255
        floats = F.interpolate(floats, (side_px, side_px), mode="bilinear", antialias=True)
        found.append(encoder(plan.normalise(floats)).cpu())
    return torch.cat(found).numpy()


def train(patches_paths: list[Path], plan: Plan, checkpoint_path: Path) -> tuple[StudentTeacher, pd.DataFrame]:
    """Train student and teacher; takes up the checkpoint where there is one, and leaves one after the last epoch.

    Gives the networks and one history row an epoch. Raises ValueError when there are no patches, or when a batch cannot
    be shared evenly among the processes.
    """
    patches, recipe = PatchDataset(patches_paths), plan.recipe
    distributed.require_even_shards(min(recipe.batch_size, len(patches)), "patch_encoder.dino.batch_size", "patches")
    networks = plan.start()
    made_by = {key: value for key, value in asdict(plan).items() if key not in ("recipe", "device", "half")}
    made_by |= recipe.model_dump() | {"patches": patches.fingerprint, "version": VERSION}
    stage = StageOne(networks, patches, plan, recipe.select(Recipe))
    return networks, fit(stage, Checkpoint(checkpoint_path, made_by))
