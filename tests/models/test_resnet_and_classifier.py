"""The network, its initial weights, and the steps and schedule of the classifier."""

import math
from functools import partial
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader
from torchvision.models import ResNet18_Weights, resnet18

from soundfold.errors import ArgumentError
from soundfold.evaluation.metrics import confusion_matrix
from soundfold.models.classifier import Classifier
from soundfold.models.initial_weights import initialize
from soundfold.models.libraries import torchvision_imagenet
from soundfold.models.optim import parameter_groups, warmup_and_decay
from soundfold.models.resnet import ResNet18


@pytest.fixture
def color(tmp_path) -> tuple:
    """A three-channel ResNet-18 in evaluation mode, and the file of its state dict."""
    torch.manual_seed(0)
    network = resnet18(num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "color.pth")
    return network, tmp_path / "color.pth"


def initialized(classes: int, weights: str, stem: str = "sum", **options) -> ResNet18:
    network = ResNet18(classes, **options)
    initialize(network, classes, weights, stem, lambda: torchvision_imagenet("resnet18"))
    return network


def features(network, image):
    network.fc = torch.nn.Identity()
    return network.eval()(image)


def test_summed_stem_responds_to_gray_as_color_weights_do(color):
    network, path = color
    gray = torch.randn(2, 1, 64, 64)
    ours = initialized(10, weights=str(path))
    torch.testing.assert_close(
        features(ours, gray), features(network, gray.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )


def test_random_stem_loads_the_other_layers(color):
    network, path = color
    ours = initialized(10, weights=str(path), stem="random")
    assert not torch.equal(ours.conv1.weight, network.conv1.weight.sum(dim=1, keepdim=True))
    assert torch.equal(ours.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


def test_imagenet_weights_are_read_from_the_cache(color, tmp_path, monkeypatch):
    network, path = color
    weights = ResNet18_Weights.IMAGENET1K_V1
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path.rename(folder / weights.url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ours = initialized(50, weights="imagenet")
    assert torch.equal(ours.layer1[0].conv1.weight, network.layer1[0].conv1.weight)
    assert ours.fc.out_features == 50


def test_imagenet_offline_names_the_alternatives(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_a, **_k: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(ArgumentError, match=r"no route.*resnet18.*`weights`=none"):
        initialized(10, weights="imagenet")


def test_unsuitable_weights_are_refused(tmp_path):
    torch.save({"network": ResNet18(7).state_dict()}, tmp_path / "seven.pt")
    with pytest.raises(ArgumentError, match="7 classes and the data has 10"):
        initialized(10, weights=str(tmp_path / "seven.pt"))
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ArgumentError, match="not a file of weights"):
        initialized(10, weights=str(tmp_path / "text.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ArgumentError, match="does not fit this ResNet18"):
        initialized(10, weights=str(tmp_path / "other.pt"))
    with pytest.raises(ArgumentError, match="cannot be read"):
        initialized(10, weights=str(tmp_path / "none.pt"))
    state = resnet18(num_classes=10).state_dict()
    state["fc.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ArgumentError, match=r"has values in fc\.bias that are not finite"):
        initialized(10, weights=str(tmp_path / "nan.pt"))


def test_weights_of_a_finished_fold_are_loaded(tmp_path):
    network = ResNet18(10)
    torch.save({"network": network.state_dict(), "classes": ["a"]}, tmp_path / "w.pt")
    loaded = initialized(10, weights=str(tmp_path / "w.pt"))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters(), strict=True))


def test_default_network_equals_torchvision():
    theirs = resnet18(num_classes=7)
    theirs.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    ours = ResNet18(7)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 1, 64, 90)
    for network in (ours, theirs):
        network.train()
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=1e-4, atol=1e-4)


def test_initialization_equals_torchvision():
    torch.manual_seed(0)
    ours, theirs = ResNet18(7).state_dict(), resnet18(num_classes=7).state_dict()
    for name in ("layer2.0.conv1.weight", "layer4.1.conv2.weight", "layer3.0.downsample.0.weight", "fc.weight"):
        assert float(ours[name].std()) == pytest.approx(float(theirs[name].std()), rel=0.05)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if "bn" in name)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (512, 2, 4)),
        ({"width": 16}, (128, 2, 4)),
        ({"max_pool": False}, (512, 4, 8)),
        ({"stem_stride": 1, "max_pool": False}, (512, 8, 16)),
        ({"frequency_channel": True, "squeeze_excitation": True, "stochastic_depth": 0.2}, (512, 2, 4)),
    ],
)
def test_architecture_options(options, shape):
    network = ResNet18(5, **options)
    image = torch.randn(2, 1, 64, 126)
    assert network.features(image).shape == (2, *shape)
    assert network(image).shape == (2, 5)


def test_mean_max_pooling_adds_the_loudest_frame():
    network = ResNet18(5, width=8, pooling="mean_max").eval()
    image = torch.randn(2, 1, 64, 126)
    over_time = network.features(image).mean(dim=2)
    expected = network.fc(over_time.mean(dim=2) + over_time.amax(dim=2))
    torch.testing.assert_close(network(image), expected)
    assert network.state_dict().keys() == ResNet18(5, width=8).state_dict().keys()


def test_frequency_channel_distinguishes_low_and_high_bands():
    image = torch.zeros(2, 1, 64, 64)
    image[0, :, 8:16], image[1, :, 40:48] = 1, 1
    plain, located = (ResNet18(5, frequency_channel=on).conv1(image).amax(dim=(2, 3)) for on in (False, True))
    torch.testing.assert_close(plain[0], plain[1])
    assert not torch.allclose(located[0], located[1], rtol=0.05)


def test_stochastic_depth_drops_branches_in_training_only():
    torch.manual_seed(0)
    network = ResNet18(5, width=8, stochastic_depth=0.9)
    last = network.layer4[1]
    x = torch.rand(200, 64, 2, 2)
    dropped = (last.train()(x) == x).flatten(1).all(dim=1).float().mean()
    assert 0.82 < dropped < 0.97
    assert torch.equal(last.eval()(x), last(x))
    assert not (last(x) == x).flatten(1).all(dim=1).any()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"width": 0}, "width"),
        ({"width": 8, "squeeze_excitation": True}, "squeeze_excitation"),
        ({"stem_stride": 3}, "stem_stride"),
        ({"stochastic_depth": 1.0}, "stochastic_depth"),
        ({"pooling": "max"}, "pooling"),
    ],
)
def test_invalid_architectures_are_refused(options, name):
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        ResNet18(5, **options)


def test_color_weights_start_with_a_zero_frequency_kernel(color):
    network, path = color
    gray = torch.randn(2, 1, 64, 64)
    network_with_frequency = initialized(10, weights=str(path), frequency_channel=True)
    torch.testing.assert_close(
        features(network_with_frequency, gray), features(network, gray.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )


def classifier(**options) -> Classifier:
    return Classifier(ResNet18(3, width=8), 3, partial(torch.optim.SGD, lr=1.0, weight_decay=0.1), **options)


def test_norms_and_biases_have_no_weight_decay():
    network = ResNet18(10)
    decayed, undecayed = parameter_groups([network])
    assert undecayed["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(undecayed["params"]) == len(list(network.parameters()))


def test_layer_decay_lowers_the_learning_rate_towards_the_stem():
    model = classifier(layer_decay=0.5, warmup=0.0)
    model.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with patch.object(pl.Trainer, "estimated_stepping_batches", 10):
        optimizer = model.configure_optimizers()["optimizer"]
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    network = model.network
    assert len(rates) == len(list(network.parameters()))
    assert [rates[id(p.weight)] for p in (network.fc, network.layer4[0].conv1, network.layer1[0].bn1)] == [
        1,
        0.5,
        1 / 16,
    ]
    assert rates[id(network.conv1.weight)] == rates[id(network.bn1.bias)] == 1 / 32
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}


def test_frozen_stages_keep_weights_and_statistics():
    model = classifier(frozen_stages=3)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups([model.network]), lr=0.1)
    model.train()
    model(torch.randn(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"layer3", "layer4", "fc"}
    assert "layer3.0.bn1.running_mean" in changed
    # SyncBatchNorm replaces the network's norms
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).train()
    assert not model.network.bn1.training
    assert model.network.layer3[0].bn1.training


def test_only_hard_targets_are_smoothed():
    model, logits, hard = classifier(label_smoothing=0.3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(model.loss(logits, hard), cross_entropy(logits, hard, label_smoothing=0.3))
    mixed, smoothed = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]]), torch.tensor([[0.8, 0.1, 0.1], [0.5, 0.5, 0]])
    torch.testing.assert_close(model.loss(logits[:2], mixed), cross_entropy(logits[:2], smoothed))


def test_binary_loss_is_a_logistic_regression_per_class():
    logits, mixed = torch.randn(2, 3), torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]])
    expected = binary_cross_entropy_with_logits(logits, mixed) * 3
    torch.testing.assert_close(classifier(loss="binary").loss(logits, mixed), expected)
    smoothed = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    expected = binary_cross_entropy_with_logits(logits, smoothed) * 3
    model = classifier(loss="binary", label_smoothing=0.3)
    torch.testing.assert_close(model.loss(logits, torch.tensor([0, 2])), expected)


def test_logits_of_a_clip_are_the_mean_over_its_images():
    image, target = torch.randn(6, 1, 32, 32), torch.tensor([0, 2])
    model = classifier().eval()
    per_image = torch.stack([model(image[i : i + 1])[0] for i in range(6)])
    model.on_test_epoch_start()
    with patch.object(model, "log"), torch.autocast("cpu", torch.bfloat16):
        model.test_step((image, target, torch.tensor([7, 8])), 0)
    logits, _, clips = model._scored[0]
    torch.testing.assert_close(logits, torch.stack([per_image[:3].mean(dim=0), per_image[3:].mean(dim=0)]))
    assert clips.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("decay", "factor"),
    [
        ("cosine", lambda part: (1 + math.cos(math.pi * part)) / 2),
        ("linear", lambda part: 1 - part),
        ("constant", lambda part: 1.0),
    ],
)
def test_the_rate_rises_linearly_and_then_decays(decay, factor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_and_decay(optimizer, 100, decay, 0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10:] == pytest.approx([factor((step - 10) / 90) for step in range(10, 101)])


def test_only_training_uses_the_compiled_network(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda image: calls.append(1) or network(image))
    model = Classifier(ResNet18(3, width=8), 3, partial(torch.optim.SGD, lr=0.1), compile="default")
    image = torch.randn(2, 1, 32, 32)
    model.training_logits(image)
    assert calls == [1]
    model.eval()(image)
    assert calls == [1]


def test_step_schedule():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_and_decay(optimizer, 100, "steps", 0.0)
    factor = schedule.lr_lambdas[0]
    assert [factor(step) for step in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"decay": "cosines"}, "decay"),
        ({"warmup": 1.0}, "warmup"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"frozen_stages": 6}, "frozen_stages"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"loss": "hinge"}, "loss"),
    ],
)
def test_invalid_training_options_are_refused(options, name):
    with pytest.raises(ArgumentError, match=f"`{name}`="):
        classifier(**options)


def test_test_metrics_of_known_logits(tmp_path):
    """With a network that returns its input, every metric is known."""
    logits = 4 * torch.eye(6)[torch.tensor([0, 1, 2, 3, 4, 5, 0, 0])] - 0.1 * torch.arange(6)
    target = torch.tensor([0, 1, 2, 3, 4, 5, 1, 0])
    rows = [(logits[i], target[i], torch.tensor(100 + i)) for i in range(8)]
    model = Classifier(torch.nn.Flatten(), 6, partial(torch.optim.SGD, lr=0.1))
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    (metrics,) = trainer.test(model, DataLoader(rows, batch_size=3), verbose=False)
    assert metrics["test/accuracy"] == pytest.approx(7 / 8)
    assert metrics["test/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item(), rel=1e-5)
    assert metrics["test/f1"] == pytest.approx((0.8 + 2 / 3 + 4) / 6)
    assert metrics["test/top5"] == pytest.approx(1.0)
    assert torch.equal(model.logits, logits)
    assert model.clips.tolist() == list(range(100, 108))
    assert confusion_matrix(model.targets.numpy(), model.logits.argmax(dim=1).numpy(), 6)[1, 0] == 1
