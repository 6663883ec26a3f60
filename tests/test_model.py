from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.models import ResNet18_Weights, resnet18

from soundfold.errors import InputError
from soundfold.model.classifier import Classifier
from soundfold.model.resnet import single_channel_resnet18
from soundfold.model.schedule import parameter_groups, warm_up_and_decay


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


def test_norms_and_biases_do_not_decay():
    network = single_channel_resnet18(10)
    decayed, free = parameter_groups(network)
    assert free["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


def test_schedule_rises_then_falls_to_nothing():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warm_up_and_decay(optimizer, 100, "cosine", 0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize(("decay", "warmup", "word"), [("steps", 0.0, "decay"), ("cosine", 1.0, "warmup")])
def test_bad_schedules_are_refused(decay, warmup, word):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(InputError, match=f"schedule.{word}"):
        warm_up_and_decay(optimizer, 100, decay, warmup)


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
