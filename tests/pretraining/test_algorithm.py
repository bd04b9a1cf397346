"""The whole of training against the reference, with the alternatives that a run may set.

The networks and the random numbers of crops are the package's; other tests hold them against oracles of their own.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from slpd_core import config
from slpd_core.pretraining import reference
from slpd_core.pretraining.crops import crop_indices, draw_crops
from slpd_core.runtime import generator
from slpd_core.ssl.checkpoint import Checkpoint
from tests.fixtures.pretraining import build_student_teacher, inter_loss_skipping, train_run

SEED = 5
BATCH = 6
SIZES = (7, 1, 6, 5)  # slide 1 is too small for prototypes; 3 steps an epoch, one region left out of each
CHANGES = {
    "epochs": 3,
    "batch_size": BATCH,
    "base_lr": 0.2,
    "warmup_epochs": 1,
    "drop_path": 0.0,
    "prototype_start_epoch": 1,
    "freeze_last_layer_epochs": 1,
    "alpha_intra": 0.7,
    "alpha_inter": 0.3,
    "n_neighbors": 3,  # one more than there are
    "teacher_momentum": 0.8,
    "clip_norm": 0.05,
}


SHARED = (
    "alpha_intra",
    "alpha_inter",
    "student_temperature",
    "teacher_temperature",
    "clip_norm",
    "center_momentum",
    "kmeans_iterations",
    "freeze_last_layer_epochs",
)
VARIANTS = {
    "paper": {},
    "released": config.PRESETS["authors_code"]
    | {"cluster_crop": 3, "prototype_start_epoch": 1, "min_regions": 6, "batch_size": BATCH, "n_neighbors": 1},
    "released, K = 2": config.PRESETS["authors_code"]
    | {"cluster_crop": 3, "prototype_start_epoch": 1, "min_regions": 5, "batch_size": BATCH, "n_neighbors": 2},
    "inter by region": {"inter_target": "region", "koleo_weight": 0.1},
    "inter by any region": {"inter_target": "any_region"},
    "global": {"clustering": "global", "alpha_inter": 0.0},
}


@pytest.fixture(params=VARIANTS)
def run(section, request):
    return section.model_copy(update=CHANGES | VARIANTS[request.param])


NAMES = {"self": "loss_self", "intra": "loss_intra", "inter": "loss_inter"}  # columns of the history


class Oracle(reference.SLPD):
    """The reference with the numbers of a run, its alternatives to the paper's text, and a history of the steps."""

    def __init__(self, cohort, section):
        self.section, self.history = section, []
        super().__init__(
            build_student_teacher(section, 8, SEED, "cpu").student,
            cohort.tokens.float(),
            torch.from_numpy(cohort.slide_of) * (section.clustering != "global"),
            M=section.n_prototypes * (len(SIZES) if section.clustering == "global" else 1),
            K=section.n_neighbors,
            **{name: getattr(section, name) for name in SHARED},
        )
        self.slides = cohort.slide_of
        if section.shared_center:
            self.center = SharedCenter(self.center)

    def embed(self):
        if self.section.cluster_space == "embedding":
            return super().embed()
        side = self.section.cluster_crop  # the middle of 4 by 3 begins at 0
        with torch.no_grad():
            bottleneck = self.teacher.head.mlp(self.teacher.encoder(self.tokens[:, :side, :side]))
        return bottleneck / bottleneck.norm(dim=1, keepdim=True)

    def cluster(self, epoch, draw_starts):
        super().cluster(epoch, draw_starts)
        sizes = self.slide_of.bincount()
        for slide in [*self.c]:
            if epoch < self.section.prototype_start_epoch or sizes[slide] < (self.section.min_regions or 0):
                del self.c[slide]
                self.m[self.slide_of == slide] = -1
        self.clustered = epoch >= self.section.prototype_start_epoch

    def assign_targets(self):
        """Each region's; in place of the matched prototypes those nearest by cosine, or regions."""
        super().assign_targets()
        if self.clustered and (self.section.inter_target != "prototype" or self.section.matching == "nearest"):
            for region in range(len(self.z)):
                targets = [target[None] for target in self.alternatives(region)]
                self.inter[region] = torch.cat([self.z[:0], *targets])

    def alternatives(self, region):
        n, section = int(self.slide_of[region]), self.section

        def nearest(rows, to, count=1):
            return [rows[i] for i in cosine_similarity(rows, to[None]).argsort(descending=True)[:count]]

        if section.inter_target == "any_region":
            return nearest(self.z[self.slides != self.slides[region]], self.z[region], self.K)
        if n not in self.c:
            return []
        slides = sorted((-reference.similarity(self.c[n], c)[0], j) for j, c in self.c.items() if j != n)[: self.K]
        if section.inter_target == "region":
            return [nearest(self.z[self.slide_of == j], self.z[region])[0] for _, j in slides]
        return [nearest(self.c[j], self.c[n][self.m[region]])[0] for _, j in slides]

    def prototype_loss(self, term, equation, c, b):
        return super().prototype_loss(term, inter_loss_skipping if self.section.skip_crop_k else equation, c, b)

    def project(self, c):
        """g_t of a prototype: the whole head of an embedding, the last layer of a bottleneck."""
        if self.section.cluster_space == "embedding":
            return super().project(c)
        return cosine_similarity(c[..., None, :], self.teacher.head.last_layer, dim=-1)

    def sharpen(self, term, logits):
        a = super().sharpen(term, logits)
        name = "teacher_entropy" if term == "self" else f"entropy_{term}"
        self.row[name] = float(-(a * a.log()).sum(-1).mean())  # of no targets: nan
        return a

    def losses(self, regions, crops):
        self.row = {}
        losses = super().losses(regions, crops)
        losses["koleo"] = self.koleo(crops)
        losses["loss"] = losses["loss"] + self.section.koleo_weight * losses["koleo"]
        self.row |= {NAMES.get(name, name): loss.item() for name, loss in losses.items()}
        return losses

    def koleo(self, crops):
        """-log of the distance to the nearest other region, both at unit length: of first crops, of second ones."""
        distances = []
        for crop in crops[:2]:
            unit = torch.nn.functional.normalize(self.student.encoder(crop), dim=1)
            apart = (unit[:, None] - unit).norm(dim=2) + 9 * torch.eye(len(unit))
            distances.append(apart.min(1).values)
        return -torch.cat(distances).log().mean()

    def update(self, loss, lr, weight_decay, momentum):
        super().update(loss, lr, weight_decay, momentum)
        self.history.append(self.row | {"lr": lr, "weight_decay": weight_decay, "teacher_momentum": momentum})

    def draw_batches(self, epoch):
        order = torch.from_numpy(generator(SEED, "batches", epoch).permutation(len(self.tokens)))
        batches = [*order.split(BATCH)][: len(order) // BATCH]
        return [(regions, self.draw_crops(regions, epoch, step)) for step, regions in enumerate(batches)]

    def draw_crops(self, regions, epoch, step):
        rng, crops, section = generator(SEED, "crops", epoch, step), [], self.section
        for count, side in (
            (section.n_global_crops, section.global_crop_size),
            (section.n_local_crops, section.local_crop_size),
        ):
            drawn = torch.from_numpy(draw_crops(count * len(regions), 4, side, section.augment, rng))
            for indices in crop_indices(drawn, side).split(len(regions)):
                of_region = [self.tokens[r].reshape(16, 8)[i] for r, i in zip(regions, indices, strict=True)]
                crops.append(torch.stack(of_region))
        return crops

    def draw_starts(self, epoch, slide, size):
        name = "" if self.section.clustering == "global" else f"s{slide}"
        starts = generator(SEED, "kmeans", epoch, name).random((self.section.kmeans_restarts, size))
        return torch.from_numpy(starts.argsort(1)[:, : self.M])

    def schedule(self, epoch, step):
        """Learning rate, weight decay and the teacher's momentum of a step."""
        section, warm = self.section, len(self.tokens) // BATCH
        steps, done = section.epochs * warm, epoch * warm + step

        def cosine(start, end, share):
            return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

        peak = section.base_lr * BATCH / 256
        lr = peak * done / warm
        if section.warmup_endpoint and done < warm:
            lr = np.linspace(0, peak, warm)[done]
        if done >= warm:
            lr = cosine(peak, section.min_lr, (done - warm) / (steps - warm))
        decay = cosine(section.weight_decay, section.weight_decay_end, done / steps)
        return lr, decay, cosine(section.teacher_momentum, 1, done / steps)


class SharedCenter(dict):
    """One center of the terms with prototypes, as in the authors' code: the second term sees it moved by the first."""

    def __getitem__(self, term):
        return super().__getitem__("intra" if term == "inter" else term)

    def __setitem__(self, term, center):
        super().__setitem__("intra" if term == "inter" else term, center)


def without_key_bias(state):
    """A network's tensors but for the biases of the keys: attention ignores them, so their gradient is noise."""
    return {
        name: torch.cat(tensor.chunk(3)[::2]) if name.endswith("qkv.bias") else tensor for name, tensor in state.items()
    }


def test_training_is_the_algorithm_of_the_paper(run, make_cohort, tmp_path):
    cohort = make_cohort(*SIZES)
    networks, history = train_run(cohort, run, SEED, "cpu", Checkpoint(tmp_path / "a.pt", {}))
    oracle = Oracle(cohort, run)
    oracle.train(run.epochs, oracle.draw_starts, oracle.draw_batches, oracle.schedule)
    per_epoch = len(oracle.history) // run.epochs
    for epoch in range(run.epochs):
        steps = oracle.history[epoch * per_epoch : (epoch + 1) * per_epoch]
        expected = {name: np.mean([step[name] for step in steps]) for name in steps[0]}
        expected |= {name: steps[-1][name] for name in ("lr", "weight_decay", "teacher_momentum")}
        row = history.iloc[epoch]
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4, nan_ok=True)
    start = build_student_teacher(run, 8, SEED, "cpu").student.state_dict()
    for ours, theirs in ((networks.student, oracle.student), (networks.teacher, oracle.teacher)):
        expected = without_key_bias(theirs.state_dict())
        for name, tensor in without_key_bias(ours.state_dict()).items():
            torch.testing.assert_close(
                tensor, expected[name], atol=2e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
            )
            moved = (expected[name] - without_key_bias(start)[name]).abs().max()
            assert moved > 1e-3, f"{name} moved by {moved} only: nothing is compared"
    for term, center in networks.centers.items():
        torch.testing.assert_close(center, oracle.center["intra" if term == "prototypes" else term], atol=1e-5, rtol=0)
        assert center.any() or (term == "inter" and not run.alpha_inter)
