"""Stage one trains as DINO is written, resumes bit for bit, and is the same shared among processes."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slpd_core import artifacts
from slpd_core.pretraining import stage_one
from slpd_core.pretraining.dino_objective import DinoObjective
from slpd_core.pretraining.patch_augmentations import PatchCropParams, sample_patch_crops
from slpd_core.pretraining.patch_dataset import PatchDataset
from slpd_core.pretraining.patch_networks import VitParams, build_patch_student_teacher
from slpd_core.runtime import sigterm_exits
from slpd_core.ssl import trainer
from slpd_core.ssl.distributed import launch_distributed
from slpd_core.ssl.losses import koleo_loss
from slpd_core.ssl.schedules import Recipe


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


VIT = VitParams("test_vit", 48, {}, drop_path=0.0, hidden_dim=32, bottleneck_dim=16, out_dim=48)  # of pictures of 48 px
CROPS = PatchCropParams(n_local_crops=2, global_crop_px=32, local_crop_px=16)
RECIPE = Recipe(epochs=3, batch_size=8, base_lr=0.5, warmup_epochs=1, teacher_momentum=0.9)


def train(paths, checkpoint_path, vit=VIT, device="cpu"):
    return stage_one.train(paths, vit, checkpoint_path, seed=3, device=device, crops=CROPS, recipe=RECIPE)


def start():
    return build_patch_student_teacher(VIT, seed=3)


@pytest.fixture
def paths(tmp_path):
    """Patches of 48 px of three slides, 12, none and 9."""
    rng, found = np.random.default_rng(0), []
    for number, n in enumerate((12, 0, 9)):
        info = artifacts.SlideInfo(f"s{number}", artifacts.OK, "", 640, 560, 0.5, "sheet", "f")
        places = np.zeros((n, 2), np.int64)
        sample = artifacts.Regions(info, places, np.ones(n, np.float32), 48, 48, 0.5)
        path = tmp_path / f"s{number}.h5"
        with artifacts.create_patches(path, sample, artifacts.provenance("patches", 1, {}, str(number))) as patches:
            if n:
                patches[:] = rng.integers(0, 256, (n, 48, 48, 3), dtype=np.uint8)
        found.append(path)
    return found


def weights(networks):
    return torch.cat([tensor.flatten() for tensor in networks.teacher.state_dict().values()])


def test_patches_of_all_slides_are_one_array(paths):
    patches = PatchDataset(paths)
    assert len(patches) == 21
    first, last = (artifacts.read_patches(path)[0] for path in (paths[0], paths[2]))
    taken = patches.get(np.array([20, 0, 11, 12]))
    np.testing.assert_array_equal(taken, np.stack([last[8], first[0], first[11], last[0]]))
    assert PatchDataset(paths[:2]).fingerprint != patches.fingerprint


def test_without_any_patch_there_is_nothing_to_train_on(paths):
    with pytest.raises(ValueError, match="no slide has patches"):
        PatchDataset(paths[1:2])


def test_the_loss_of_a_step_is_dinos(paths):
    """Each student crop against each of the teacher's global crops but itself; KoLeo of each global crop."""
    networks = start()
    with torch.no_grad():
        networks.teacher.head.last_layer.add_(0.3 * torch.randn_like(networks.teacher.head.last_layer))
    center = torch.randn(48, generator=torch.Generator().manual_seed(1)) / 10
    networks.centers["self"] = center.clone()
    pixels = PatchDataset(paths).get(np.arange(4))
    views = sample_patch_crops(pixels, np.arange(4), 4, CROPS, np.random.default_rng(0))
    views = [VIT.normalize(view) for view in views]
    metrics = DinoObjective().backward(networks, views)
    found = [parameter.grad.clone() for parameter in networks.student.parameters()]
    crops = [crop for view in views for crop in view]
    student = [F.log_softmax(networks.student(crop) / 0.1, -1) for crop in crops]
    teacher = [F.softmax((networks.teacher(crop) - center) / 0.04, -1) for crop in crops[:2]]
    pairs = [-(t * s).sum(-1) for i, t in enumerate(teacher) for j, s in enumerate(student) if i != j]
    expected = torch.stack(pairs).mean(), sum(koleo_loss(networks.student.encoder(crop)) for crop in crops[:2]) / 2
    torch.testing.assert_close((metrics["loss_self"], metrics["koleo"]), expected)
    torch.testing.assert_close(metrics["loss"], expected[0] + 0.1 * expected[1])
    gradients = torch.autograd.grad(expected[0] + 0.1 * expected[1], list(networks.student.parameters()))
    torch.testing.assert_close(found, list(gradients), atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(
        metrics["teacher_entropy"], torch.stack([-(t * t.log()).sum(-1) for t in teacher]).mean()
    )
    logits = torch.cat([networks.teacher(crop) for crop in crops[:2]])
    torch.testing.assert_close(networks.centers["self"], 0.9 * center + 0.1 * logits.mean(0))


def test_the_log_has_both_losses_of_each_epoch(paths, tmp_path, caplog):
    caplog.set_level("INFO")
    _, history = train(paths, tmp_path / "c.pt")
    columns = {"loss": "loss", "self": "loss_self", "KoLeo": "koleo", "teacher entropy": "teacher_entropy"}
    for row in history.to_dict("records"):
        line = ", ".join(f"{name} {row[column]:.3f}" for name, column in columns.items())
        assert f"epoch {row['epoch'] + 1:.0f} of 3: {line}, effective rank {row['effective_rank']:.1f}, " in caplog.text


def test_training_changes_the_teacher_and_keeps_a_history(paths, tmp_path):
    networks, history = train(paths, tmp_path / "c.pt")
    assert history["epoch"].tolist() == [0, 1, 2]
    assert np.isfinite(history.to_numpy()).all()
    np.testing.assert_allclose(history["loss"], history["loss_self"] + 0.1 * history["koleo"], rtol=1e-5)
    assert history["log_out_dim"].iloc[0] == pytest.approx(np.log(48))
    assert (weights(networks) - weights(start())).abs().max() > 0.003
    assert (tmp_path / "c.pt").exists()


@pytest.mark.parametrize(("stop", "measured"), [(KeyboardInterrupt, 0), (signal.SIGTERM, 1)], ids=["killed", "SIGTERM"])
def test_resumed_equals_uninterrupted_bit_for_bit(paths, tmp_path, monkeypatch, stop, measured):
    """Ended in the first of two steps of the second epoch: what kills loses that epoch, SIGTERM waits for the step."""
    vit = replace(VIT, drop_path=0.3)
    whole, history = train(paths, tmp_path / "whole.pt", vit)
    backward, done = DinoObjective.backward, []

    def ended(*arguments):
        done.append(1)
        if len(done) == 3 and stop is KeyboardInterrupt:
            raise stop
        if len(done) == 3:
            signal.raise_signal(stop)
        return backward(*arguments)

    monkeypatch.setattr(DinoObjective, "backward", ended)
    with sigterm_exits(), pytest.raises((KeyboardInterrupt, SystemExit)):
        train(paths, tmp_path / "cut.pt", vit)
    state = artifacts.read_torch(tmp_path / "cut.pt")
    epoch = state["extra_state"]["epoch"]
    assert (len(state["history"]), len(epoch["metrics"]) if epoch else 0) == (1, measured)
    resumed, again = train(paths, tmp_path / "cut.pt", vit)
    assert len(done) == 3 + 4 - measured
    assert torch.equal(weights(resumed), weights(whole))
    assert again.equals(history)


def test_other_patches_begin_anew(paths, tmp_path):
    train(paths, tmp_path / "c.pt")
    _, history = train(paths[:1], tmp_path / "c.pt")
    assert len(history) == 3
    assert len([*tmp_path.glob("c.*.pt")]) == 1


@pytest.mark.slow
def test_two_processes_train_as_one(paths, tmp_path, monkeypatch):
    alone, history = train(paths, tmp_path / "alone.pt")
    launch_distributed(train, 2, "cpu", paths, tmp_path / "shared.pt")
    trained = []
    monkeypatch.setattr(trainer, "train_epoch", lambda *_: trained.append(_))
    shared, together = train(paths, tmp_path / "shared.pt")
    assert not trained  # what they have come to is taken up, in another process than theirs
    np.testing.assert_allclose(together, history, rtol=1e-3, atol=1e-4)
    changed, apart = weights(alone) - weights(start()), weights(shared) - weights(alone)
    assert apart.norm() < 0.02 * changed.norm()


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_message(paths, tmp_path):
    with pytest.raises(RuntimeError, match=r"process [01]: ValueError: no slide has patches"):
        launch_distributed(train, 2, "cpu", paths[1:2], tmp_path / "c.pt")


def test_a_batch_that_cannot_be_shared_is_named(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_one.distributed, "world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"patch_encoder\.dino\.batch_size: 8 patches .* among 3 GPUs"):
        train(paths, tmp_path / "c.pt")


def test_a_loss_that_is_not_finite_stops_with_the_remedy(paths, tmp_path, monkeypatch):
    def backward(objective, networks, batch):
        return {"loss": torch.tensor(torch.nan), "loss_self": torch.tensor(1.0)}

    monkeypatch.setattr(DinoObjective, "backward", backward)
    with pytest.raises(RuntimeError, match=r"loss nan in epoch 1, step 1: lower patch_encoder\.dino\.base_lr"):
        train(paths, tmp_path / "c.pt")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("half", "epochs", "tolerance"), [(False, 3, 1e-2), (True, 1, 1e-2)])
def test_a_gpu_trains_as_the_cpu_does(paths, tmp_path, half, epochs, tolerance):
    """In half precision for an epoch: at this rate of learning small differences grow fast."""
    found = {}
    for device in ("cpu", "cuda"):
        vit = replace(VIT, half=half and device == "cuda")
        _, rows = train(paths, tmp_path / f"{device}.pt", vit, device)
        found[device] = rows["loss"]
    np.testing.assert_allclose(found["cuda"][:epochs], found["cpu"][:epochs], rtol=tolerance)
