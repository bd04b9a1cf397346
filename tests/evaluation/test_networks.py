"""The classifiers are HIPT's, layer by layer: sizes, keys, and arithmetic written out again in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from slpd_core.evaluation import networks


def built(name, dim=192, n_classes=2, dropout=0.25):
    return networks.build_network(name, dim, n_classes, dropout, 1).eval()


def linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.fixture
def slide():
    return torch.randn(9, 192, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "count"), [("mil", 37_442), ("abmil", 181_763), ("dsmil", 62_916), ("vit_wsi", 595_011)]
)
def test_parameters(name, count):
    assert sum(parameter.numel() for parameter in built(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mil", {"classifier.0", "classifier.3"}),
        ("dsmil", {"i_classifier.fc.0", "b_classifier.q", "b_classifier.v.1", "b_classifier.fcc"}),
        (
            "vit_wsi",
            {
                "global_phi.0",
                "global_attn_pool.attention_a.0",
                "global_attn_pool.attention_b.0",
                "global_attn_pool.attention_c",
                "global_rho.0",
                "classifier",
            },
        ),
    ],
)
def test_keys_are_those_of_the_published_models(name, keys):
    found = {key.rsplit(".", 1)[0] for key in built(name).state_dict()}
    assert {key for key in found if not key.startswith("global_transformer.layers.")} == keys
    layers = {key.split(".")[2] for key in found if key.startswith("global_transformer.layers.")}
    assert layers == ({"0", "1"} if name == "vit_wsi" else set())


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_one_slide_gives_one_row_of_logits_that_all_parameters_shape(name, n_classes, slide):
    model = built(name, n_classes=n_classes)
    logits = model(slide)
    assert logits.shape == (n_classes,)
    logits.square().sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in model.named_parameters()}
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    moving = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 0}
    flat = {name for name in reached - moving if not name.endswith("bias")}
    assert not flat
    assert model(slide[:1]).shape == (n_classes,)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_order_of_regions_does_not_matter(name, slide):
    model = built(name)
    with torch.no_grad():
        torch.testing.assert_close(model(slide), model(slide.flip(0)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_dropout_acts_while_training_only(name, slide):
    model = built(name, dropout=0.5)
    with torch.no_grad():
        assert torch.equal(model(slide), model(slide))
        model.train()
        changed = [not torch.equal(model(slide), model(slide)) for _ in range(5)]
    assert any(changed) == (name != "dsmil")


def test_mil_takes_the_instance_most_probably_class_1(slide):
    model = built("mil")
    first, last = model.classifier[0], model.classifier[3]
    logits = linear(last, np.maximum(linear(first, slide.numpy()), 0))
    expected = logits[softmax(logits, 1)[:, 1].argmax()]
    np.testing.assert_allclose(model(slide).detach(), expected, atol=1e-5)


def test_mil_of_three_classes_takes_the_surest_instance(slide):
    model = built("mil", n_classes=3)
    logits = linear(model.classifier[3], np.maximum(linear(model.classifier[0], slide.numpy()), 0))
    expected = logits[np.unravel_index(softmax(logits, 1).argmax(), logits.shape)[0]]
    np.testing.assert_allclose(model(slide).detach(), expected, atol=1e-5)


def test_mil_of_one_output_takes_the_highest(slide):
    model = built("mil", n_classes=1)
    outputs = linear(model.classifier[3], np.maximum(linear(model.classifier[0], slide.numpy()), 0))
    np.testing.assert_allclose(model(slide).detach(), outputs.max(0), atol=1e-5)


def test_mil_starts_xavier_normal():
    model = built("mil")
    assert not model.classifier[0].bias.any()
    assert model.classifier[0].weight.std().item() == pytest.approx((2 / (192 + 192)) ** 0.5, rel=0.03)


def test_dsmil_is_its_formula(slide):
    model, x = built("dsmil"), slide.numpy()
    instance = linear(model.i_classifier["fc"][0], x)
    q, v = linear(model.b_classifier["q"], x), linear(model.b_classifier["v"][1], x)
    whole = np.zeros((2, 192))
    for c in range(2):
        critical = q[instance[:, c].argmax()]
        attention = softmax(np.array([q_i @ critical for q_i in q]) / np.sqrt(128), 0)
        whole[c] = sum(a * v_i for a, v_i in zip(attention, v, strict=True))
    kernel, bias = (p.detach().numpy() for p in model.b_classifier["fcc"].parameters())
    bag = np.array([sum(kernel[o, c] @ whole[c] for c in range(2)) + bias[o] for o in range(2)])
    np.testing.assert_allclose(model(slide).detach(), (bag + instance.max(0)) / 2, atol=1e-5)


def gated_scores(gate, x):
    hidden = np.tanh(linear(gate.attention_a[0], x)) / (1 + np.exp(-linear(gate.attention_b[0], x)))
    return linear(gate.attention_c, hidden)


def test_gated_attention_is_its_formula(slide):
    gate = networks.GatedAttention(192, 0.25, np.random.default_rng(0)).eval()
    np.testing.assert_allclose(gate(slide).detach(), gated_scores(gate, slide.numpy()), atol=1e-5)


def layer_norm(norm, x):
    scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def self_attention(attention, x):
    """Three heads of 64, each a softmax of q·k / √64 over all instances."""
    packed = x @ attention.in_proj_weight.detach().numpy().T + attention.in_proj_bias.detach().numpy()
    q, k, v = np.split(packed, 3, axis=1)
    heads = [slice(64 * head, 64 * (head + 1)) for head in range(3)]
    mixed = [softmax(q[:, head] @ k[:, head].T / 8, 1) @ v[:, head] for head in heads]
    return linear(attention.out_proj, np.concatenate(mixed, axis=1))


def transformer_layer(layer, x):
    """Post-norm: what a block adds is normalised together with its input; ReLU between the feed-forward layers."""
    x = layer_norm(layer.norm1, x + self_attention(layer.self_attn, x))
    hidden = np.maximum(linear(layer.linear1, x), 0)
    return layer_norm(layer.norm2, x + linear(layer.linear2, hidden))


def test_vit_wsi_is_its_formula(slide):
    model = built("vit_wsi")
    with torch.no_grad():  # every norm its own scale, every layer its own weights, scores that differ
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
        model.global_transformer.layers[1].linear1.weight *= -1
        logits = model(slide)
    x = np.maximum(linear(model.global_phi[0], slide.numpy()), 0)
    for layer in model.global_transformer.layers:
        x = transformer_layer(layer, x)
    attention = softmax(gated_scores(model.global_attn_pool, x), 0)
    assert attention.max() > 1.5 * attention.min()
    pooled = np.maximum(linear(model.global_rho[0], (attention * x).sum(0)), 0)
    np.testing.assert_allclose(logits, linear(model.classifier, pooled), atol=1e-4)


def gated(dim):
    """Gated attention under the published names."""
    names = {"attention_a": nn.Tanh(), "attention_b": nn.Sigmoid()}
    branches = {name: nn.Sequential(nn.Linear(dim, dim), squash, nn.Dropout(0.25)) for name, squash in names.items()}
    return nn.ModuleDict(branches | {"attention_c": nn.Linear(dim, 1)})


def published(name, dim, n_classes):
    """A model as it is published, of torch's own layers: the parts by their published names, and its forward pass."""
    hidden = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(0.25))
    if name == "mil":
        parts = nn.ModuleDict({"classifier": nn.Sequential(*hidden, nn.Linear(dim, n_classes))})

        def forward(x):
            logits = parts["classifier"](x)
            return logits[logits.softmax(1)[:, 1].argmax()]

    elif name == "dsmil":
        instance = nn.ModuleDict({"fc": nn.Sequential(nn.Linear(dim, n_classes))})
        value, whole = nn.Sequential(nn.Dropout(0.0), nn.Linear(dim, dim)), nn.Conv1d(n_classes, n_classes, dim)
        bag = nn.ModuleDict({"q": nn.Linear(dim, 128), "v": value, "fcc": whole})
        parts = nn.ModuleDict({"i_classifier": instance, "b_classifier": bag})

        def forward(x):
            scores = instance["fc"](x)
            critical = bag["q"](x[scores.topk(1, dim=0).indices[0]])
            weights = nn.functional.softmax(bag["q"](x) @ critical.T / 128**0.5, 0)
            return (bag["fcc"]((weights.T @ bag["v"](x))[None]).flatten() + scores.max(0).values) / 2

    else:
        layer = nn.TransformerEncoderLayer(192, 3, 192, 0.25, activation="relu")
        parts = nn.ModuleDict(
            {
                "global_phi": nn.Sequential(nn.Linear(dim, 192), *hidden[1:]),
                "global_transformer": nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                "global_attn_pool": gated(192),
                "global_rho": nn.Sequential(nn.Linear(192, 192), *hidden[1:]),
                "classifier": nn.Linear(192, n_classes),
            }
        )

        def forward(x):
            x = parts["global_transformer"](parts["global_phi"](x)[:, None])[:, 0]
            pool = parts["global_attn_pool"]
            weights = pool["attention_c"](pool["attention_a"](x) * pool["attention_b"](x)).T.softmax(1)
            return parts["classifier"](parts["global_rho"](weights @ x))[0]

    return parts.eval(), forward


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["mil", "dsmil", "vit_wsi"])
def test_a_published_state_dict_gives_the_published_logits(name, seed):
    torch.manual_seed(seed)
    dim = 384 if name != "vit_wsi" else 192
    parts, forward = published(name, dim, 2)
    model = networks.build_network(name, dim, 2, 0.25, 1).eval()
    model.load_state_dict(parts.state_dict())
    with torch.no_grad():
        for L in (1, 7, 300):
            slide = torch.randn(L, dim)
            torch.testing.assert_close(model(slide), forward(slide), atol=1e-5, rtol=0)


def test_abmil_is_its_formula(slide):
    model = built("abmil")
    with torch.no_grad():
        model.attention.attention_c.weight *= 20  # scores that differ
        logits = model(slide)
    x = np.maximum(linear(model.reduce[0], slide.numpy()), 0)
    attention = softmax(gated_scores(model.attention, x), 0)
    assert attention.max() > 1.5 * attention.min()
    np.testing.assert_allclose(logits, linear(model.classifier, (attention * x).sum(0)), atol=1e-4)


LAYER_DROPOUTS = {f"global_transformer.layers.{i}.drop" for i in (0, 1)}
GATE_DROPOUTS = {"global_attn_pool.attention_a.2", "global_attn_pool.attention_b.2"}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("mil", {"classifier.2"}),
        ("dsmil", set()),
        ("vit_wsi", {"global_phi.2", "global_rho.2"} | LAYER_DROPOUTS | GATE_DROPOUTS),
    ],
)
def test_dropout_stands_where_hipt_has_it(name, paths):
    modules = built(name, dropout=0.125).named_modules()
    found = {path: module.threshold / 2**16 for path, module in modules if isinstance(module, networks.Dropout)}
    assert found == dict.fromkeys(paths, 0.125)


def test_a_layer_drops_where_torchs_does(monkeypatch):
    """Four times: attention weights, what attention adds, the hidden units, what they add."""
    layer, shapes = built("vit_wsi").global_transformer.layers[0].train(), []
    monkeypatch.setattr(networks.Dropout, "forward", lambda self, x: shapes.append(x.shape) or x)
    layer(torch.randn(9, 192))
    assert shapes == [(3, 9, 9), (9, 192), (9, 192), (9, 192)]


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_is_torchs_in_values_and_gradients(training):
    """And takes up its weights, key by key."""
    torchs = torch.nn.TransformerEncoderLayer(192, 3, 192, dropout=0.0).double().train(training)
    ours = networks.EncoderLayer(192, 3, 0.0, np.random.default_rng(0)).double().train(training)
    ours.load_state_dict(torchs.state_dict())
    x = torch.randn(9, 192, dtype=torch.float64)
    found, wanted = ours(x), torchs(x)
    torch.testing.assert_close(found, wanted)
    for layer, result in ((ours, found), (torchs, wanted)):
        (result * torch.arange(192)).sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())
    for name, parameter in torchs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad)


def test_dropout_keeps_its_share_and_the_mean():
    drop = networks.Dropout(0.25, np.random.default_rng(0))
    found = drop(torch.ones(500, 401))
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (found == 0).float().mean() == pytest.approx(0.25, abs=0.005)
    assert drop.eval()(found) is found


def test_weights_depend_on_the_seed_alone():
    torch.rand(3)
    a = built("vit_wsi").state_dict()
    torch.rand(5)
    assert all(torch.equal(a[key], tensor) for key, tensor in built("vit_wsi").state_dict().items())
