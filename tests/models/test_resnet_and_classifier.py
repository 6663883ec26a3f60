from functools import partial
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.models import ResNet18_Weights, resnet18

from soundfold.errors import InputError
from soundfold.models.classifier import Classifier
from soundfold.models.optim import parameter_groups, warmup_and_decay
from soundfold.models.resnet import ResNet18, single_channel_resnet18


@pytest.fixture
def colour(tmp_path) -> tuple:
    """A three-channel ResNet-18 in evaluation, and the file of its state dict."""
    torch.manual_seed(0)
    network = resnet18(num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "colour.pth")
    return network, tmp_path / "colour.pth"


def features(network, image):
    network.fc = torch.nn.Identity()
    return network.eval()(image)


def test_summed_stem_sees_grey_as_colour_weights_do(colour):
    network, path = colour
    grey = torch.randn(2, 1, 64, 64)
    ours = single_channel_resnet18(10, weights=str(path))
    torch.testing.assert_close(
        features(ours, grey), features(network, grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )


def test_random_stem_keeps_the_rest(colour):
    network, path = colour
    ours = single_channel_resnet18(10, weights=str(path), stem="random")
    assert not torch.equal(ours.conv1.weight, network.conv1.weight.sum(dim=1, keepdim=True))
    assert torch.equal(ours.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


def test_imagenet_weights_come_from_torchs_cache(colour, tmp_path, monkeypatch):
    network, path = colour
    weights = ResNet18_Weights.IMAGENET1K_V1
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path.rename(folder / weights.url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ours = single_channel_resnet18(50, weights="imagenet")
    assert torch.equal(ours.layer1[0].conv1.weight, network.layer1[0].conv1.weight)
    assert ours.fc.out_features == 50


def test_imagenet_offline_names_the_alternatives(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_a, **_k: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(InputError, match=r"no route.*resnet18.*model\.weights=none"):
        single_channel_resnet18(10, weights="imagenet")


def test_weights_of_other_classes_and_other_files_are_refused(tmp_path):
    torch.save({"network": single_channel_resnet18(7).state_dict()}, tmp_path / "seven.pt")
    with pytest.raises(InputError, match="7 classes and the data has 10"):
        single_channel_resnet18(10, weights=str(tmp_path / "seven.pt"))
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(InputError, match="not a file of weights"):
        single_channel_resnet18(10, weights=str(tmp_path / "text.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="not those of a ResNet-18"):
        single_channel_resnet18(10, weights=str(tmp_path / "other.pt"))
    with pytest.raises(InputError, match="cannot be read"):
        single_channel_resnet18(10, weights=str(tmp_path / "none.pt"))


def test_finished_weights_load_whole(tmp_path):
    network = single_channel_resnet18(10)
    torch.save({"network": network.state_dict(), "classes": ["a"]}, tmp_path / "w.pt")
    again = single_channel_resnet18(10, weights=str(tmp_path / "w.pt"))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_without_options_it_is_torchvisions():
    theirs = resnet18(num_classes=7)
    theirs.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    ours = ResNet18(7)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 1, 64, 90)
    for network in (ours, theirs):
        network.train()
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=1e-4, atol=1e-4)


def test_weights_start_as_torchvisions_do():
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


def test_frequency_channel_tells_a_low_band_from_a_high_one():
    image = torch.zeros(2, 1, 64, 64)
    image[0, :, 8:16], image[1, :, 40:48] = 1, 1
    plain, placed = (ResNet18(5, frequency_channel=on).conv1(image).amax(dim=(2, 3)) for on in (False, True))
    torch.testing.assert_close(plain[0], plain[1])
    assert not torch.allclose(placed[0], placed[1], rtol=0.05)


def test_stochastic_depth_leaves_branches_out_in_training_only():
    torch.manual_seed(0)
    network = ResNet18(5, width=8, stochastic_depth=0.9)
    last = network.layer4[1]
    x = torch.rand(200, 64, 2, 2)
    left_out = (last.train()(x) == x).flatten(1).all(dim=1).float().mean()
    assert 0.82 < left_out < 0.97
    assert torch.equal(last.eval()(x), last(x))
    assert not (last(x) == x).flatten(1).all(dim=1).any()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 0}, "width"),
        ({"width": 8, "squeeze_excitation": True}, "squeeze_excitation"),
        ({"stem_stride": 3}, "stem_stride"),
        ({"stochastic_depth": 1.0}, "stochastic_depth"),
    ],
)
def test_bad_architectures_are_refused(options, word):
    with pytest.raises(InputError, match=f"model.{word}"):
        ResNet18(5, **options)


def test_colour_weights_say_nothing_of_a_rows_place(colour):
    network, path = colour
    grey = torch.randn(2, 1, 64, 64)
    placed = single_channel_resnet18(10, weights=str(path), frequency_channel=True)
    torch.testing.assert_close(
        features(placed, grey), features(network, grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )


def classifier(**options) -> Classifier:
    return Classifier(ResNet18(3, width=8), 3, partial(torch.optim.SGD, lr=1.0, weight_decay=0.1), **options)


def test_norms_and_biases_do_not_decay():
    network = single_channel_resnet18(10)
    decayed, free = parameter_groups([network])
    assert free["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


def test_rates_fall_from_the_head_to_the_stem():
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


def test_what_is_frozen_keeps_its_weights_and_its_statistics():
    model = classifier(frozen_stages=3)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups([model.network]), lr=0.1)
    model.train()
    model(torch.randn(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"layer3", "layer4", "fc"}
    assert "layer3.0.bn1.running_mean" in changed
    # norms that several devices synchronise take the place of the network's own
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).train()
    assert not model.network.bn1.training
    assert model.network.layer3[0].bn1.training


def test_only_what_is_certain_is_smoothed():
    model, logits, hard = classifier(label_smoothing=0.3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(model.loss(logits, hard), cross_entropy(logits, hard, label_smoothing=0.3))
    mixed, smoothed = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]]), torch.tensor([[0.8, 0.1, 0.1], [0.5, 0.5, 0]])
    torch.testing.assert_close(model.loss(logits[:2], mixed), cross_entropy(logits[:2], smoothed))


@pytest.mark.parametrize("compile", ["none", "graphs"])
def test_gradients_that_a_graph_wrote_do_not_outlive_their_step(compile):
    """On a CUDA device the next replay writes over them; elsewhere a batch's parts add theirs."""
    network = torch.nn.Linear(2, 2)
    model = Classifier(network, 2, torch.optim.SGD, compile=compile)
    network(torch.ones(1, 2)).sum().backward()
    model.on_train_batch_end(None, None, 0)
    assert (network.weight.grad is None) == (compile == "graphs")


def test_a_clip_of_several_images_has_their_mean_logits(tmp_path):
    image, target = torch.randn(6, 1, 32, 32), torch.tensor([0, 2])
    model = classifier().eval()
    singly = torch.stack([model(image[i : i + 1])[0] for i in range(6)])
    model.on_test_epoch_start()
    with patch.object(model, "log"), torch.autocast("cpu", torch.bfloat16):
        model.test_step((image, target, torch.tensor([7, 8])), 0)
    (logits, clips) = model._scored[0]
    torch.testing.assert_close(logits, torch.stack([singly[:3].mean(dim=0), singly[3:].mean(dim=0)]))
    assert clips.tolist() == [7, 8]


def test_schedule_rises_then_falls_to_nothing():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_and_decay(optimizer, 100, "cosine", 0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_steps_fall_to_a_tenth_and_a_hundredth():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_and_decay(optimizer, 100, "steps", 0.0)
    factor = schedule.lr_lambdas[0]
    assert [factor(step) for step in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"decay": "cosines"}, "schedule.decay"),
        ({"warmup": 1.0}, "schedule.warmup"),
        ({"label_smoothing": 1.0}, "model.label_smoothing"),
        ({"frozen_stages": 6}, "model.frozen_stages"),
        ({"layer_decay": 0.0}, "model.layer_decay"),
    ],
)
def test_bad_values_of_training_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        classifier(**options)


def test_test_step_keeps_logits_and_counts_right(tmp_path):
    """A network that returns its input: every figure is known beforehand."""
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
    (figures,) = trainer.test(model, DataLoader(rows, batch_size=3), verbose=False)
    assert figures["test/accuracy"] == pytest.approx(7 / 8)
    assert figures["test/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item(), rel=1e-5)
    assert figures["test/f1"] == pytest.approx((0.8 + 2 / 3 + 4) / 6)
    assert figures["test/top5"] == pytest.approx(1.0)
    assert torch.equal(model.logits, logits)
    assert model.clips.tolist() == list(range(100, 108))
    assert model.confusion.compute()[1, 0] == 1
