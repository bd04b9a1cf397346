"""Validation slides choose the epoch and the learning rate of a network, and nothing else does."""

import numpy as np
import pytest
import torch

from slpd_core.evaluation import classifiers, evaluate, folds, networks, training
from slpd_core.evaluation.task_heads import ClassificationHead, SurvivalHead

NETWORKS = ["mil", "abmil", "dsmil", "vit_wsi"]


def test_a_rate_that_diverges_is_not_chosen_and_only_if_all_do_it_is_an_error(make_slides, plant):
    slides = make_slides(6)
    parts, features = folds.make_folds(slides, 1, n_folds=3, val_fraction=0.34), plant(slides, 1.0)
    huge = {slide: array * np.float32(1e15) for slide, array in features.items()}
    chosen, _ = fit(parts, features, "mil", lr_grid=(1e-3, 1e30), epochs=1)
    assert chosen.chosen["lr"] == "0.001"
    with pytest.raises(ValueError, match=r"dsmil diverged while training; lower evaluate\.lr_grid \(1e\+30, 1e\+35\)"):
        fit(parts, huge, "dsmil", lr_grid=(1e30, 1e35), epochs=1)


@pytest.fixture
def task(make_slides, plant):
    """Folds with a validation part, and features whose mean carries the label."""
    slides = make_slides(8)
    return folds.make_folds(slides, 1, n_folds=4, val_fraction=0.34), plant(slides, 0.6)


def cross_entropy(parts, features, model, part):
    """The mean loss of a part by the classifier's probabilities, and nothing of the training's code."""
    rows = parts[(parts["fold"] == 0) & (parts["part"] == part)]
    predict = classifiers.build_predictor(model)
    p = [
        predict(features[slide])[0][model.endpoint.classes.index(label)]
        for slide, label in zip(rows["slide_id"], rows["label"], strict=True)
    ]
    return -np.log(np.maximum(p, 1e-12)).mean()


def fit(parts, features, classifier, *, select="val", lr_grid=(), **options):
    fold = evaluate.select_fold(parts, 0)
    validation = evaluate.select_validation(fold, select, lr_grid)
    return evaluate.predict_fold(fold, features.__getitem__, classifier, 1, validation=validation, **options)


@pytest.mark.parametrize("classifier", NETWORKS)
def test_the_epoch_is_the_one_of_lowest_validation_loss(task, classifier):
    parts, features = task
    options = {"lr": 5e-3, "dropout": 0.25}
    ends = [fit(parts, features, classifier, select="last", epochs=epochs, **options)[0] for epochs in range(1, 9)]
    losses = [cross_entropy(parts, features, model, "val") for model in ends]
    chosen, _ = fit(parts, features, classifier, epochs=8, **options)
    best = int(np.argmin(losses))
    assert chosen.chosen == {"epoch": str(best + 1), "lr": "0.005"}
    for name, array in chosen.arrays.items():
        np.testing.assert_array_equal(array, ends[best].arrays[name])


def test_the_rate_is_the_one_of_lowest_validation_loss(task):
    parts, features = task
    grid = (1e-6, 3e-3, 1.0)
    each = [fit(parts, features, "dsmil", lr_grid=(rate,), epochs=4)[0] for rate in grid]
    losses = [cross_entropy(parts, features, model, "val") for model in each]
    chosen, _ = fit(parts, features, "dsmil", lr_grid=grid, epochs=4)
    assert chosen.chosen == each[int(np.argmin(losses))].chosen
    assert len({model.chosen["lr"] for model in each}) == 3


@pytest.mark.parametrize("classifier", NETWORKS)
def test_test_slides_do_not_choose(task, classifier):
    """Their features are noise and their labels swapped: what is chosen stays, to the bit."""
    parts, features = task
    chosen, _ = fit(parts, features, classifier, epochs=4, lr=1e-2, lr_grid=(1e-3, 1e-2))
    tested = parts["part"] == "test"
    other = parts.assign(label=parts["label"].where(~tested, parts["label"].map({"x": "y", "y": "x"})))
    rng = np.random.default_rng(0)
    ids = parts.loc[(parts["fold"] == 0) & tested, "slide_id"]
    noise = features | {slide: rng.normal(size=features[slide].shape).astype(np.float32) for slide in ids}
    again, _ = fit(other, noise, classifier, epochs=4, lr=1e-2, lr_grid=(1e-3, 1e-2))
    assert again.chosen == chosen.chosen
    for name, array in chosen.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])


def test_choosing_on_the_test_part_would_show(make_slides, plant):
    """Labels are noise: the best of many rates on the test part beats chance there; the one of validation does not."""
    honest, cheating = [], []
    for seed in range(12):
        slides = make_slides(10, slides=(1,))
        features = plant(slides, 0.0, seed=seed)
        parts = folds.make_folds(slides, seed, n_folds=4, val_fraction=0.34)
        grid = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
        chosen, _ = fit(parts, features, "mil", lr_grid=grid, epochs=3)
        each = [fit(parts, features, "mil", lr_grid=(rate,), epochs=3)[0] for rate in grid]
        cheating.append(min(cross_entropy(parts, features, model, "test") for model in each))
        honest.append(cross_entropy(parts, features, chosen, "test"))
    assert np.mean(honest) > np.mean(cheating) + 0.01
    assert np.mean(honest) > np.log(2) - 0.02  # chance


def test_a_fold_without_validation_slides_is_refused(make_slides, plant):
    slides = make_slides(4)
    fold = evaluate.select_fold(folds.make_folds(slides, 1, n_folds=2), 0)
    with pytest.raises(ValueError, match=r"fold 0: no validation slides.*raise folds\.val_fraction"):
        evaluate.select_validation(fold, "val")
    assert evaluate.select_validation(fold, "last") is None


def test_the_validation_loss_is_without_dropout_and_leaves_the_network_training(plant, make_slides):
    slides = make_slides(2)
    features = plant(slides, 1.0)
    network = networks.build_network("abmil", 16, 2, 0.9, 0).train()
    labels = (slides["label"] == "y").to_numpy(np.int64)
    part = training.Bags(slides["slide_id"].to_list(), labels)
    losses = {training.validation_loss(network, ClassificationHead(2), features.__getitem__, part) for _ in range(3)}
    assert len(losses) == 1
    assert network.training
    with torch.inference_mode():
        logits = torch.stack([network.eval()(torch.from_numpy(features[slide])) for slide in part.ids])
    expected = -logits.log_softmax(1)[range(len(labels)), labels].mean().item()
    assert losses.pop() == pytest.approx(expected, rel=1e-6)


def test_a_network_that_diverges_in_every_epoch_says_so(task):
    parts, features = task
    huge = {slide: array * np.float32(1e30) for slide, array in features.items()}
    with pytest.raises(ValueError, match=r"dsmil diverged while training; lower evaluate\.lr"):
        fit(parts, huge, "dsmil", epochs=1)


@pytest.mark.parametrize("classifier", NETWORKS)
def test_bags_passed_one_by_one_have_the_gradients_of_all_at_once(classifier):
    rng = np.random.default_rng(0)
    bags = [torch.from_numpy(rng.normal(size=(n, 16)).astype(np.float32)) for n in (3, 1, 7, 4)]
    targets = torch.tensor([[3.0, 1], [1, 1], [2, 0], [5, 0]], dtype=torch.float64)
    joint, single = (networks.build_network(classifier, 16, 1, 0.5, 1).train() for _ in range(2))
    head, order = SurvivalHead(), [2, 0, 3, 1]
    head.loss(torch.stack([joint(bags[i]) for i in order]), targets[order]).backward()
    training.backward_bags(single, head, bags.__getitem__, order, targets)
    for one, other in zip(joint.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    after = [networks.dropout_generator(network).bit_generator.random_raw() for network in (joint, single)]
    assert classifier == "dsmil" or after[0] == after[1]
