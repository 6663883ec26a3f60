"""Networks of torchvision, of timm and of users, and what a model file may name."""

import sys
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from soundfold.config import compose_config, trust
from soundfold.config.trust import _trusted
from soundfold.errors import ArgumentError, InputError
from soundfold.experiment import device, setup
from soundfold.models.classifier import Classifier
from soundfold.models.initial_weights import initialize
from soundfold.models.libraries import timm_imagenet, timm_network, torchvision_imagenet, torchvision_network
from soundfold.models.memory_format import to_channels_last
from soundfold.models.networks import build_network, check_network, check_stored_network, stages
from soundfold.models.resnet import ResNet18

TORCHVISION = "soundfold.models.libraries.torchvision_network"
TIMM = "soundfold.models.libraries.timm_network"
IMAGE = torch.zeros(2, 1, 64, 100)
IMAGES = {True: IMAGE, False: IMAGE}


class Net(nn.Module):
    """A user's network."""

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, width, 3), nn.Linear(width, classes)

    def forward(self, image):
        assert image.mean().isfinite()  # not possible on the meta device
        return self.fc(self.conv(image).mean(dim=(2, 3)))


class Flat(Net):
    """A network that a channels-last feature map fails in."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(4), nn.Linear(4 * 16, classes)

    def forward(self, image):
        features = self.pool(self.conv(image))
        return self.fc(features.view(len(features), -1))


class Volumes(Net):
    """A network with a three-dimensional convolution beside a two-dimensional one."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.volume = nn.Conv3d(4, 4, 1)

    def forward(self, image):
        return self.fc(self.volume(self.conv(image)[:, :, None]).mean(dim=(2, 3, 4)))


class WithStages(Net):
    def stages(self):
        return [self.conv, self.fc]


class Forgetful(Net):
    def stages(self):
        return [self.fc]


def named(num_classes: int) -> Net:
    return Net(num_classes, width=8)


def section(target: str, **options) -> dict:
    return {"_target_": target, "stem": "sum", "loss": "binary", **options}


def own(name: str, **options) -> dict:
    return section(f"{__name__}.{name}", **options)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[Net.__module__])
    before = set(_trusted)
    yield
    _trusted.intersection_update(before)


@pytest.mark.parametrize("build", [Volumes, ResNet18, partial(torchvision_network, name="mobilenet_v3_small")])
def test_channels_last_changes_rounding_only(build):
    torch.manual_seed(0)
    network, image = build(3).eval(), torch.randn(2, 1, 64, 100)
    before, strides = network(image), {name: weight.stride() for name, weight in network.named_parameters()}
    assert to_channels_last(network) is network
    assert {name for name, weight in network.named_parameters() if weight.stride() != strides[name]}
    torch.testing.assert_close(network(image), before, rtol=1e-4, atol=1e-5)


def test_a_network_that_fails_in_channels_last_is_trained_without(capsys):
    target = f"model._target_={__name__}.Flat"
    own = [f"~model.{key}" for key in ("width", "stem_stride", "max_pool", "frequency_channel", "squeeze_excitation")]
    own += ["~model.stochastic_depth", "~model.pooling", "model.weights=none"]
    device.print_note.cache_clear()
    cfg = compose_config("data=synthetic", "features.n_mels=64", target, *own)
    assert cfg.model.channels_last
    checked = setup._check_network(cfg, IMAGES)
    assert not checked.model.channels_last
    assert checked.optim == cfg.optim
    assert "model.channels_last=false is set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_a_network_of_torchvision_responds_to_gray_as_in_color(name):
    torch.manual_seed(0)
    theirs = get_model(name, num_classes=5).eval()
    torch.manual_seed(0)
    ours = torchvision_network(5, name).eval()
    gray = torch.randn(2, 1, 64, 100)
    torch.testing.assert_close(ours(gray), theirs(gray.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stem", ["sum", "random"])
def test_color_weights_of_another_network_are_loaded(stem, tmp_path):
    theirs, ours = get_model("mobilenet_v3_small"), torchvision_network(5, "mobilenet_v3_small")
    torch.save(theirs.state_dict(), tmp_path / "color.pth")
    kernel, head = ours.features[0][0].weight.clone(), ours.classifier[3].weight.clone()
    initialize(ours, 5, str(tmp_path / "color.pth"), stem)
    summed = theirs.features[0][0].weight.sum(dim=1, keepdim=True)
    assert torch.equal(ours.features[0][0].weight, summed if stem == "sum" else kernel)
    assert torch.equal(ours.features[5].block[0][0].weight, theirs.features[5].block[0][0].weight)
    assert torch.equal(ours.classifier[3].weight, head)


def test_imagenet_weights_of_another_network_are_read_from_the_cache(tmp_path, monkeypatch):
    name = "mobilenet_v3_small"
    theirs, folder = get_model(name), tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_a, **_k: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(ArgumentError, match=f"no route.*Copy {file} there"):
        build_network(section(TORCHVISION, name=name), 5, "imagenet")
    torch.save(theirs.state_dict(), folder / file)
    state = torch.random.get_rng_state()
    loaded = torchvision_imagenet(name)
    # the draws of a run do not depend on where its weights come from
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, loaded[key]) for key, value in theirs.state_dict().items())
    network = build_network(section(TORCHVISION, name=name), 5, "imagenet")
    assert network.classifier[3].out_features == 5
    assert torch.equal(network.features[0][0].weight, theirs.features[0][0].weight.sum(dim=1, keepdim=True))


def test_timms_weights_are_asked_for_and_a_failure_is_explained(monkeypatch):
    timm = pytest.importorskip("timm")
    theirs, calls = timm.create_model("test_resnet"), []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: calls.append((name, options)) or theirs)
    state = torch.random.get_rng_state()
    assert timm_imagenet("test_resnet").keys() == theirs.state_dict().keys()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert calls == [("test_resnet", {"pretrained": True})]
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("no route\nin detail")))
    with pytest.raises(ArgumentError, match=r"timm's weights of test_resnet could not be loaded \(no route\)"):
        timm_imagenet("test_resnet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet35"}, "`name`=resnet35 is not an image classifier of torchvision. Did you mean resnet"),
        # its builder would download the weights of its backbone
        ({"name": "fasterrcnn_resnet50_fpn"}, "is not an image classifier of torchvision"),
        ({"name": "resnet18", "weights_backbone": "DEFAULT"}, "`weights_backbone` would load weights"),
        ({"name": "resnet18", "pretrained": True}, "`pretrained` would load weights"),
        ({"name": "resnet18", "widht": 3}, "`widht` is not an option of torchvision's resnet18"),
    ],
)
def test_a_builder_refuses_unknown_names_and_options_that_load(options, message):
    with pytest.raises(ArgumentError, match=message):
        torchvision_network(2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_b_16"}, r"cannot take images of shape \(1, 64, 100\) in training \(AssertionError: Wrong image"),
        ({"name": "googlenet"}, r"returns a GoogLeNetOutputs in training .*such as model\.aux_logits=false"),
        ({"name": "googlenet", "aux_logits": False}, None),
        ({"name": "vgg11", "dropout": 0.2}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_networks_that_return_no_logits_of_these_images_are_refused(options, message):
    check = partial(check_network, lambda: torchvision_network(3, **options), IMAGES, 3)
    if message is None:
        check()
    else:
        with pytest.raises(ArgumentError, match=message):
            check()


def test_a_user_s_network_gets_the_number_of_classes_and_its_options():
    assert build_network(own("Net", width=6), 5).fc.weight.shape == (5, 6)
    # a function annotated to return a network, in the words of other libraries
    assert build_network(own("named"), 5).fc.weight.shape == (5, 8)
    check_network(lambda: build_network(own("Net"), 5), IMAGES, 5)
    with pytest.raises(ArgumentError, match=r"returns \(2, 4\) in training for 2 images and 5 classes"):
        check_network(lambda: build_network(own("Net"), 4), IMAGES, 5)
    with pytest.raises(ArgumentError, match=r"cannot take images of shape \(2, 64, 100\)"):
        check_network(lambda: build_network(own("Net"), 5), {True: IMAGE.repeat(1, 2, 1, 1)}, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (own("Net", widht=3), r"model\.widht is not an option of .*Net\. Did you mean model\.width\?"),
        (own("Net", label_smothing=3), r"Did you mean model\.label_smoothing\?"),
        (own("Net", classes=3), r"model\.classes cannot be set"),
        (own("Net", width="wide"), r"model: .*Net rejects its options"),
        (section("pathlib.Path"), r"model\._target_=pathlib\.Path is not a torch\.nn"),
        (section("mypackage.Net"), r"model\._target_=mypackage\.Net cannot be imported"),
    ],
)
def test_what_is_not_a_network_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        build_network(values, 2)


def test_imagenet_weights_of_a_user_s_network_are_refused():
    with pytest.raises(ArgumentError, match="`weights`=imagenet: Net has no such weights"):
        build_network(own("Net"), 2, "imagenet")


def test_stages_of_a_network_without_the_hook():
    for option in ({"layer_decay": 0.5}, {"frozen_stages": 1}):
        with pytest.raises(ArgumentError, match=rf"`{next(iter(option))}` requires a method stages\(\) of .*Net"):
            Classifier(Net(2), 2, partial(torch.optim.SGD, lr=0.1), **option)
        Classifier(WithStages(2), 2, partial(torch.optim.SGD, lr=0.1), **option)
        with pytest.raises(ArgumentError, match="do not hold every parameter once"):
            Classifier(Forgetful(2), 2, partial(torch.optim.SGD, lr=0.1), **option)
    with pytest.raises(ArgumentError, match=r"`frozen_stages`=2 must be between 0 and 1"):
        Classifier(WithStages(2), 2, partial(torch.optim.SGD, lr=0.1), frozen_stages=2)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 6), ("mobilenet_v3_small", 14), ("densenet121", 9), ("regnet_y_400mf", 6), ("convnext_tiny", 9)],
)
def test_stages_of_torchvision(name, count):
    network = torchvision_network(2, name)
    found = stages(network, "layer_decay")
    assert len(found) == count
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first in set(found[0].modules())
    *_, head = (module for module in network.modules() if isinstance(module, nn.Linear))
    assert head in set(found[-1].modules())


def test_stages_of_torchvision_s_resnet18_are_ours():
    with torch.device("meta"):
        networks = torchvision_network(2, "resnet18"), ResNet18(2)
    ours, theirs = (
        [[(name, p.shape) for name, p in stage.named_parameters()] for stage in stages(network, "layer_decay")]
        for network in networks
    )
    assert ours == theirs


@pytest.fixture
def malicious(tmp_path, monkeypatch):
    """Return a module that leaves a trace when it is imported, and the file of the trace."""
    (tmp_path / "malicious.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n"
        f"Path({str(tmp_path / 'trace')!r}).touch()\n"
        "class Net(nn.Linear):\n    def __init__(self, classes): super().__init__(2, classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "trace"
    sys.modules.pop("malicious", None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (section("malicious.Net"), "add --trust malicious"),
        (section("torchvision.io.write_file", filename="trace", data=[1]), "add --trust torchvision"),
        (section("torch.hub.download_url_to_file", url="http://127.0.0.1/", dst="trace"), "add --trust torch "),
        (section("soundfold.io.atomic.write_text", path="trace", text="x"), "add --trust soundfold"),
        (section("soundfold.models.resnet.os.system", command="touch trace"), "add --trust soundfold"),
        (section("torchvision.models.resnet18", weights="DEFAULT"), "add --trust torchvision"),
        (section(["os.system"]), "add --trust MODULE"),
        (section(TIMM, name="resnet18", checkpoint_path="./trace"), r"model\.checkpoint_path='\./trace' is neither"),
        (section(TIMM, name="hf-hub:timm/resnet18.a1_in1k"), r"model\.name='hf-hub.* is neither"),
        (section(TIMM, name="local-dir:trace"), r"model\.name='local-dir:trace' is neither"),
        (section(TORCHVISION, name="resnet18", norm_layer={"_target_": "malicious.Net"}), r"model\.norm_layer="),
    ],
)
def test_a_model_file_may_not_name_other_code(values, message, malicious, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        check_stored_network(values)
    assert not malicious.exists()


def test_a_trusted_module_may_be_named(malicious):
    trust("malicious")
    check_stored_network(section("malicious.Net"))
    assert build_network(section("malicious.Net"), 3).out_features == 3
    assert malicious.exists()
    with pytest.raises(InputError, match="add --trust malicious2"):
        check_stored_network(section("malicious2.Net"))
    # a trusted function is called only if it declares to return a network
    trust("torchvision", "torch")
    for values in (section("torchvision.io.write_file"), section("torch.hub.download_url_to_file")):
        check_stored_network(values)
        with pytest.raises(InputError, match="is not a torch.nn|does not declare"):
            build_network(values, 3)


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ArgumentError, match=r"model=timm requires timm, which is not installed: pip install .*\[timm\]'"
    ):
        timm_network(2, "resnet18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet_18"}, "is not an image classifier of timm. Did you mean resnet"),
        ({"name": "hf-hub:timm/resnet18"}, "is not an image classifier of timm"),
        ({"name": "local-dir:."}, "is not an image classifier of timm"),
        ({"name": "resnet18", "checkpoint_path": "x"}, "`checkpoint_path` would load weights"),
        ({"name": "resnet18", "pretrained_cfg": {"file": "x"}}, "`pretrained_cfg` would load weights"),
        ({"name": "resnet18", "widht": 1}, "`widht` is not an option of timm's resnet18"),
    ],
)
def test_timm_refuses_unknown_names_and_options_that_load(options, message):
    pytest.importorskip("timm")
    with pytest.raises(ArgumentError, match=message):
        timm_network(2, **options)


def test_a_network_of_timm():
    pytest.importorskip("timm")
    network = build_network(section(TIMM, name="convnext_atto", drop_rate=0.1), 3).eval()
    assert network(torch.randn(2, 1, 64, 96)).shape == (2, 3)
    assert len(stages(network, "layer_decay")) == 6
    with pytest.raises(ArgumentError, match="cannot take images"):
        check_network(lambda: build_network(section(TIMM, name="vit_tiny_patch16_224"), 3), IMAGES, 3)
