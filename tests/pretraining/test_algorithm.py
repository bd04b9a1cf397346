"""The whole of training against the algorithm written out by hand, region by region and crop by crop.

From the package come only what other tests hold against oracles of their own: the networks, the random numbers of crops
and starts, k-means and the matching of slides. Losses, clipping, AdamW, moving averages and schedules are written anew.
"""

import copy
import math

import numpy as np
import pytest
import torch

from slpd_core import config
from slpd_core.pretraining import pretrain
from slpd_core.pretraining.crops import crop_indices
from slpd_core.pretraining.networks import start_networks
from slpd_core.pretraining.prototypes import cluster_slides
from slpd_core.runtime import generator
from slpd_core.ssl.checkpoint import Checkpoint

SEED = 5
BATCH = 6
SIZES = (7, 1, 6, 5)  # slide 1 is too small for prototypes; 3 steps an epoch, one region left out of each
CHANGES = {
    "epochs": 3,
    "batch_size": BATCH,
    "base_lr": 0.2,
    "warmup_epochs": 1,
    "drop_path": 0.0,
    "self_only_epochs": 1,
    "freeze_last_layer_epochs": 1,
    "alpha_intra": 0.7,
    "alpha_inter": 0.3,
    "n_neighbours": 3,  # one more than there are
    "teacher_momentum": 0.8,
    "clip_norm": 0.05,
}


VARIANTS = {
    "paper": {},
    "released": config.PRESETS["released"]
    | {"cluster_crop": 3, "self_only_epochs": 1, "min_regions": 6, "batch_size": BATCH, "n_neighbours": 1},
    "released, K = 2": config.PRESETS["released"]
    | {"cluster_crop": 3, "self_only_epochs": 1, "min_regions": 5, "batch_size": BATCH, "n_neighbours": 2},
    "inter by region": {"inter": "region", "koleo": 0.1},
    "inter by any region": {"inter": "any_region"},
    "global": {"clustering": "global", "alpha_inter": 0.0},
}


@pytest.fixture(params=VARIANTS)
def run(section, request):
    return section.model_copy(update=CHANGES | VARIANTS[request.param])


class ByHand:
    """The algorithm, with the names of the paper."""

    def __init__(self, cohort, section):
        self.cohort, self.section = cohort, section
        start = start_networks(section, 8, SEED, "cpu").student
        self.s, self.t = copy.deepcopy(start).train(), copy.deepcopy(start).eval()
        terms = ("self", "prototypes") if section.shared_centre else ("self", "intra", "inter")
        self.centres = {term: torch.zeros(section.out_dim) for term in terms}
        self.moments = {name: (0, 0, 0) for name, _ in self.s.named_parameters()}
        self.step, self.steps = 0, section.epochs * (len(cohort.tokens) // BATCH)

    def train(self):
        history = []
        for epoch in range(self.section.epochs):
            clustered = self.cluster(epoch) if epoch >= self.section.self_only_epochs else None
            order = generator(SEED, "batches", epoch).permutation(len(self.cohort.tokens))
            steps = [
                self.one_step(order[number * BATCH : (number + 1) * BATCH], epoch, number, clustered)
                for number in range(len(order) // BATCH)
            ]
            history.append({name: np.mean([step[name] for step in steps]) for name in steps[0]})
            history[-1].update({name: steps[-1][name] for name in ("lr", "weight_decay", "teacher_momentum")})
        return history

    def cluster(self, epoch):
        section, cohort = self.section, self.cohort
        crop = slice(0, section.cluster_crop or 4)  # the middle of 4 by 3 begins at 0
        with torch.no_grad():
            found = torch.cat([self.t.encoder(tokens.float()[None, crop, crop]) for tokens in cohort.tokens])
            if section.cluster_space == "bottleneck":
                found = self.t.head.mlp(found)
                found = found / found.norm(dim=1, keepdim=True)
        self.clustered = found.numpy()
        everything = section.clustering == "global"
        self.group_of = 0 * cohort.slide_of if everything else cohort.slide_of
        return cluster_slides(
            self.clustered,
            self.group_of,
            [""] if everything else cohort.slide_ids,
            M=section.n_prototypes * (len(SIZES) if everything else 1),
            K=section.n_neighbours,
            restarts=section.kmeans_restarts,
            iterations=section.kmeans_iterations,
            seed=SEED,
            epoch=epoch,
            min_regions=section.min_regions,
            matching=section.matching,
        )

    def crops(self, regions, epoch, number):
        """Of each region its crops, the global ones first."""
        rng, found = generator(SEED, "crops", epoch, number), [[] for _ in regions]
        kinds = ((self.section.n_global_crops, self.section.global_crop), (self.section.n_local_crops, 2))
        for count, side in kinds:
            where = crop_indices(count * len(regions), 4, side, self.section.augment, rng)
            for place, rows in enumerate(where):  # all first crops, then all second ones
                b = place % len(regions)
                found[b].append(self.cohort.tokens[regions[b]].float().reshape(16, 8)[torch.from_numpy(rows)])
        return found

    def prototypes_of(self, region, clustered):
        """c of a region and its matched partners: none where there is none."""
        if clustered is not None and self.section.inter == "any_region":
            elsewhere = self.clustered[self.cohort.slide_of != self.cohort.slide_of[region]]
            cosine = elsewhere @ self.clustered[region] / np.linalg.norm(elsewhere, axis=1)
            nearest = [*elsewhere[np.argsort(-cosine)[: self.section.n_neighbours]]]
        else:
            nearest = []
        if clustered is None or clustered.assignment[region] < 0:
            return {"intra": [], "inter": nearest}
        slide, own = self.group_of[region], clustered.assignment[region]
        if nearest:
            return {"intra": [clustered.centres[slide, own]], "inter": nearest}
        partners = []
        for neighbour, match in zip(clustered.neighbours[slide], clustered.matches[slide], strict=True):
            there = self.clustered[self.group_of == neighbour]
            if neighbour >= 0 and self.section.inter == "region":
                cosine = there @ self.clustered[region] / np.linalg.norm(there, axis=1)
                partners.append(there[cosine.argmax()])
            elif neighbour >= 0:
                partners.append(clustered.centres[neighbour, match[own]])
        return {"intra": [clustered.centres[slide, own]], "inter": partners}

    def logits_of(self, prototype):
        """g_t of a prototype: the whole head of an embedding, the last layer of a bottleneck."""
        if self.section.cluster_space == "embedding":
            return self.t.head(prototype[None])[0]
        weights = self.t.head.last_layer
        return (weights / weights.norm(dim=1, keepdim=True)) @ (prototype / prototype.norm())

    def one_step(self, regions, epoch, number, clustered):
        """Term by term: its targets of all regions, its loss, then its centre."""
        section, losses, entropies = self.section, {}, {}
        crops = self.crops(regions, epoch, number)
        log_p = [[(self.s(c[None])[0] / section.student_temperature).log_softmax(-1) for c in own] for own in crops]
        prototypes = [self.prototypes_of(region, clustered) for region in regions]
        for term in ("self", "intra", "inter"):
            with torch.no_grad():
                if term == "self":
                    logits = [[self.t(crop[None])[0] for crop in own[: section.n_global_crops]] for own in crops]
                else:
                    logits = [[self.logits_of(torch.from_numpy(c)) for c in own[term]] for own in prototypes]
            if term == "inter" and not section.alpha_inter:
                logits = [[] for _ in regions]
            name = "prototypes" if section.shared_centre and term != "self" else term
            of_regions, seen = [], []
            for rows, student in zip(logits, log_p, strict=True):
                a = [((row - self.centres[name]) / section.teacher_temperature).softmax(-1) for row in rows]
                seen += [-(target * target.log()).sum() for target in a]
                pairs = [
                    -(target * b).sum()
                    for i, target in enumerate(a)
                    for j, b in enumerate(student)
                    if i != j or not (term == "self" or section.skip_crop_k)
                ]
                if pairs:
                    of_regions.append(torch.stack(pairs).mean())
            losses[term] = torch.stack(of_regions).mean() if of_regions else torch.zeros(())
            entropies[term] = float(torch.stack(seen).mean()) if seen else math.nan
            every = [row for rows in logits for row in rows]
            if every:
                self.centres[name] = 0.9 * self.centres[name] + 0.1 * torch.stack(every).mean(0)
        losses["koleo"] = self.koleo(crops)
        weights = {"self": 1, "intra": section.alpha_intra, "inter": section.alpha_inter, "koleo": section.koleo}
        total = sum(weights[term] * loss for term, loss in losses.items())
        row = {"loss": total.item()} | {term: loss.item() for term, loss in losses.items()}
        row |= {"teacher_entropy": entropies["self"]} | {f"entropy_{t}": entropies[t] for t in ("intra", "inter")}
        return row | self.move(total, epoch)

    def koleo(self, crops):
        """-log of the distance to the nearest other region, both at unit length: of first crops, of second ones."""
        found = []
        for number in range(self.section.n_global_crops):
            embeddings = torch.cat([self.s.encoder(own[number][None]) for own in crops])
            unit = embeddings / embeddings.norm(dim=1, keepdim=True)
            apart = (unit[:, None] - unit).norm(dim=2) + 9 * torch.eye(len(unit))
            found += [-torch.log(distance) for distance in apart.min(1).values]
        return torch.stack(found).mean()

    def move(self, total, epoch):
        """AdamW with clipping parameter by parameter, then the teacher's moving average."""
        section, warm = self.section, self.steps // self.section.epochs

        def cosine(start, end, done):
            return end + (start - end) * (1 + math.cos(math.pi * done)) / 2

        peak = section.base_lr * BATCH / 256
        lr = peak * self.step / warm
        if section.warmup_endpoint and self.step < warm:
            lr = np.linspace(0, peak, warm)[self.step]
        if self.step >= warm:
            lr = cosine(peak, section.min_lr, (self.step - warm) / (self.steps - warm))
        decay = cosine(section.weight_decay, section.weight_decay_end, self.step / self.steps)
        momentum = cosine(section.teacher_momentum, 1, self.step / self.steps)
        self.s.zero_grad()
        total.backward()
        with torch.no_grad():
            for (name, p), mine in zip(self.s.named_parameters(), self.t.parameters(), strict=True):
                if not (epoch < section.freeze_last_layer_epochs and name == "head.last_layer"):
                    g = p.grad * min(1, section.clip_norm / (float(p.grad.norm()) + 1e-6))
                    count, first, second = self.moments[name]
                    count, first, second = count + 1, 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
                    self.moments[name] = (count, first, second)
                    p *= 1 - lr * (decay if p.ndim > 1 else 0)
                    p -= lr * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
                mine.copy_(momentum * mine + (1 - momentum) * p)
        self.step += 1
        return {"lr": lr, "weight_decay": decay, "teacher_momentum": momentum}


def without_key_bias(state):
    """A network's tensors but for the biases of the keys: attention ignores them, so their gradient is noise."""
    return {
        name: torch.cat(tensor.chunk(3)[::2]) if name.endswith("qkv.bias") else tensor for name, tensor in state.items()
    }


def test_training_is_the_algorithm_written_out(run, make_cohort, tmp_path):
    cohort = make_cohort(*SIZES)
    networks, history = pretrain.train(cohort, run, SEED, "cpu", Checkpoint(tmp_path / "a.pt", {}))
    by_hand = ByHand(cohort, run)
    for epoch, expected in enumerate(by_hand.train()):
        found = history.iloc[epoch]
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4, nan_ok=True)
    start = start_networks(run, 8, SEED, "cpu").student.state_dict()
    for ours, theirs in ((networks.student, by_hand.s), (networks.teacher, by_hand.t)):
        expected = without_key_bias(theirs.state_dict())
        for name, tensor in without_key_bias(ours.state_dict()).items():
            torch.testing.assert_close(
                tensor, expected[name], atol=2e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
            )
            moved = (expected[name] - without_key_bias(start)[name]).abs().max()
            assert moved > 1e-3, f"{name} moved by {moved} only: nothing is compared"
    for term, centre in networks.centres.items():
        torch.testing.assert_close(centre, by_hand.centres[term], atol=1e-5, rtol=0)
        assert centre.any() or (term == "inter" and not run.alpha_inter)
