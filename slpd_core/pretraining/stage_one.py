"""Stage one: DINO pretraining of the patch encoder on patches sampled from the cohort (Caron et al., ICCV 2021)."""

import math
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core import artifacts, config
from slpd_core.encoders import vit
from slpd_core.pretraining.patch_augmentations import draw_views
from slpd_core.runtime import TERMINATED, deferred_sigterm, generator, log
from slpd_core.ssl import distributed, losses
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.losses import Logits
from slpd_core.ssl.monitoring import effective_rank, fixed_sample, to_tensorboard
from slpd_core.ssl.student_teacher import Network, Networks, move_centre, set_schedules, update
from slpd_core.ssl.trainer import batches, first_not_finite, take_steps

VERSION = 3
MEANS = ("loss", "self", "koleo", "teacher_entropy")  # of history.csv: the means of an epoch's steps
EPOCH = "epoch %d of %d: loss %.3f, self %.3f, koleo %.3f, teacher entropy %.3f, effective rank %.1f, %.1f patches/s"
WATCHED_PATCHES = 256  # whose tokens the effective rank is of


class Patches:
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

    def take(self, rows: np.ndarray) -> Tensor:
        """uint8 (rows, P, P, 3)."""
        slides = np.searchsorted(self._starts, rows, side="right") - 1
        taken = [self._arrays[slide][row - self._starts[slide]] for slide, row in zip(slides, rows, strict=True)]
        return torch.from_numpy(np.stack(taken))


@dataclass(frozen=True)
class Plan:
    """What is trained, how.

    name, arguments: of the encoder, a ViT of timm's with positions for pictures of input_px. mean, std: of RGB in 0..1.
    half: whether the networks may compute in bfloat16.
    """

    name: str
    input_px: int
    arguments: dict[str, Any]
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

    def start(self) -> Networks:
        """Student and teacher with heads."""
        recipe = self.recipe

        def build(drop_path: float) -> Network:
            encoder = vit.build_vit(
                self.name, self.input_px, self.arguments, drop_path_rate=drop_path, dynamic_img_size=True
            )
            if self.half and self.device == "cpu":  # torch's fused attention is five times slower there
                for part in (part for part in encoder.modules() if hasattr(part, "fused_attn")):
                    part.fused_attn = False
            head = ProjectionHead(encoder.num_features, recipe.hidden_dim, recipe.bottleneck_dim, recipe.out_dim)
            return Network(encoder, head)

        return Networks.start(build, recipe, ("self",), self.torch_seed("weights"), self.device)


def step(networks: Networks, views: list[Tensor], plan: Plan) -> Tensor:
    """Give the student the gradients of a batch's loss, and move the centre; gives MEANS of the batch, (4,).

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
    counted, outputs = wanted.new_ones(B, G), teacher.head.output_rows()
    centre = move_centre(networks, "self", wanted, outputs, counted, recipe.center_momentum)
    own, _, entropy = losses.distil(
        Logits(crops, student.head.output_rows(), recipe.student_temperature),
        Logits(wanted, outputs, recipe.teacher_temperature),
        centre.expand(G, -1),
        losses.other_views(G, crops.shape[1]).to(crops).expand(B, -1, -1) / B,
        torch.bfloat16 if plan.half else torch.float32,
    )
    koleo = losses.koleo_of_crops(embeddings[: G * B], G)
    loss = own + recipe.koleo_weight * koleo
    loss.backward()
    return torch.stack([loss, own, koleo, losses.mean_that_counts(entropy, counted)]).detach()


def train_epoch(
    networks: Networks,
    patches: Patches,
    plan: Plan,
    epoch: int,
    row: dict[str, float],
    measured: list[Tensor],
    asked_to_stop: Callable[[], bool],
) -> bool:
    """One epoch over all patches, from the step it had come to; gives whether it came to its end.

    measured: MEANS of the steps done. At the end `row` has their means and the schedules' last values. Raises
    RuntimeError at a loss that is not finite.
    """
    recipe, seed = plan.recipe, plan.seed
    steps = batches(len(patches), recipe.batch_size, generator(seed, "dino_patches", "batches", epoch))
    pixels = read_ahead(patches, steps[len(measured) :])

    def take(number: int) -> Tensor:
        n, own = len(steps[number]), next(pixels).to(plan.device)
        torch.manual_seed(plan.torch_seed("drop_path", epoch, number) + distributed.rank())
        schedule = set_schedules(networks, recipe, epoch * len(steps) + number, len(steps), n)
        rng = generator(seed, "dino_patches", "crops", epoch, number)
        views = draw_views(own, distributed.own_share(np.arange(n)), n, recipe, rng)
        found = step(networks, [plan.normalise(view) for view in views], plan)
        update(networks, recipe, schedule["teacher_momentum"])
        row.update(schedule)
        return found

    def look_at(losses: Tensor) -> None:
        if found := first_not_finite(losses):
            raise RuntimeError(
                f"loss {found[1]} in epoch {epoch}, step {found[0]}: lower patch_encoder.dino.base_lr or raise "
                "patch_encoder.dino.teacher_temperature; the last checkpoint is kept"
            )

    with closing(pixels):
        if not take_steps(take, len(steps), measured, look_at, asked_to_stop, f"epoch {epoch}"):
            return False
    row.update(zip(MEANS, torch.stack(measured).mean(0).tolist(), strict=True))
    return True


def read_ahead(patches: Patches, steps: list[np.ndarray]) -> Generator[Tensor]:
    """This process's share of each batch, uint8 (b, P, P, 3), the next one read while the last is worked on."""
    with ThreadPoolExecutor(1) as thread:
        reading = [thread.submit(patches.take, distributed.own_share(batch)) for batch in steps[:2]]
        for number in range(len(steps)):
            yield reading.pop(0).result()
            if number + 2 < len(steps):
                reading.append(thread.submit(patches.take, distributed.own_share(steps[number + 2])))


@torch.inference_mode()
def tokens_of(encoder: Any, pixels: Tensor, plan: Plan, side_px: int, batch_size: int = 32) -> np.ndarray:
    """Tokens of patches, uint8 (n, P, P, 3), brought to `side_px`: float32 (n, token_dim)."""
    found = []
    for batch in pixels.split(batch_size):
        floats = batch.to(plan.device).permute(0, 3, 1, 2).float() / 255
        floats = F.interpolate(floats, (side_px, side_px), mode="bilinear", antialias=True)
        found.append(encoder(plan.normalise(floats)).cpu())
    return torch.cat(found).numpy()


def train(patches_paths: list[Path], plan: Plan, checkpoint_path: Path) -> tuple[Networks, pd.DataFrame]:
    """Train student and teacher; takes up the checkpoint where there is one, and leaves one after the last epoch.

    Gives the networks and one history row an epoch. Raises ValueError when there are no patches, or when a batch cannot
    be shared evenly among the processes.
    """
    patches, recipe = Patches(patches_paths), plan.recipe
    distributed.require_even_shares(min(recipe.batch_size, len(patches)), "patch_encoder.dino.batch_size", "patches")
    networks = plan.start()
    made_by = {key: value for key, value in asdict(plan).items() if key not in ("recipe", "device", "half")}
    made_by |= recipe.model_dump() | {"patches": patches.fingerprint, "version": VERSION}
    checkpoint = Checkpoint(checkpoint_path, made_by)
    watched = patches.take(fixed_sample(len(patches), WATCHED_PATCHES))
    history, more = checkpoint.restore(networks, ["measured"])
    measured = list(more["measured"].to(plan.device)) if more else []
    for epoch in range(len(history), recipe.epochs):
        started, before = time.monotonic(), len(measured)
        row: dict[str, float] = {"epoch": epoch, "uniform": math.log(recipe.out_dim)}
        with deferred_sigterm() as asked_to_stop:
            if not train_epoch(networks, patches, plan, epoch, row, measured, asked_to_stop):
                checkpoint.save(networks, history, {"measured": torch.stack(measured)})
                log.info("stopped in epoch %d after %d steps", epoch + 1, len(measured))
                sys.exit(TERMINATED)
            row["effective_rank"] = effective_rank(
                tokens_of(networks.teacher.encoder, watched, plan, recipe.global_crop_px)
            )
            history.append(row)
            checkpoint.save(networks, history, {"measured": torch.empty(0)})
            to_tensorboard(checkpoint_path.with_name("tensorboard"), row)
        done = (len(measured) - before) * min(recipe.batch_size, len(patches))
        rate, measured = done / (time.monotonic() - started), []
        log.info(EPOCH, epoch + 1, recipe.epochs, *(row[name] for name in MEANS), row["effective_rank"], rate)
    return networks, pd.DataFrame(history)
