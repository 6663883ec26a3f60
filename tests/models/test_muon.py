"""Muon against timm's, against singular value decompositions, resumed, and with rates of a CUDA graph."""

import copy
from functools import partial

import pytest
import timm.optim.muon
import torch
from timm.optim.muon import zeropower_via_newtonschulz

from soundfold.errors import ArgumentError
from soundfold.models.muon import Muon, orthogonalize
from soundfold.models.optim import parameter_groups
from soundfold.models.resnet import ResNet18


def small_network(seed: int = 0) -> ResNet18:
    torch.manual_seed(seed)
    return ResNet18(10, width=16)


def set_gradients(network: ResNet18, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


def optimizer_of(network: ResNet18, make=Muon, **options):
    return make(parameter_groups(network.stages()), **{"lr": 0.01, "weight_decay": 0.1, **options})


def assert_same_weights(one: ResNet18, other: ResNet18, tolerance: float) -> None:
    for (name, weight), counterpart in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(weight, counterpart, rtol=0, atol=tolerance), name


@pytest.fixture
def reference_in_float32(monkeypatch):
    """Let timm's Muon iterate in float32, not in bfloat16."""
    in_float32 = partial(zeropower_via_newtonschulz, dtype=torch.float32)
    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", in_float32)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fused", [True, False])
def test_a_network_is_updated_as_by_timm(memory_format, fused, reference_in_float32):
    network = small_network()
    expected = copy.deepcopy(network)
    optimizer = optimizer_of(network.to(memory_format=memory_format), nesterov=False, fused=fused)
    # with its Nesterov momentum, timm's also replaces AdamW by NAdamW
    reference = optimizer_of(expected, timm.optim.muon.Muon, nesterov=False, betas=(0.9, 0.999), eps=1e-8)
    for step in range(4):
        set_gradients(network, step)
        set_gradients(expected, step)
        optimizer.step()
        reference.step()
    assert_same_weights(network, expected, 1e-5)


def test_nesterov_momentum_is_that_of_timm(reference_in_float32):
    weights = [torch.ones(8, 4, 3, 3, requires_grad=True) for _ in range(2)]
    optimizers = [
        kind([weight], lr=0.01, weight_decay=0.1, nesterov=True)
        for kind, weight in zip((Muon, timm.optim.muon.Muon), weights, strict=True)
    ]
    for step in range(3):
        gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(step))
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    assert torch.allclose(*weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 24, 96), (2, 96, 24), (1, 48, 48)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.3), (torch.bfloat16, 0.35)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape, dtype, tolerance):
    rng = torch.Generator().manual_seed(0)
    short = min(shape[1:])
    left, right = (torch.linalg.qr(torch.randn(shape[0], n, short, generator=rng)).Q for n in shape[1:])
    matrices = left * torch.logspace(-1, 1, short) @ right.mT
    found = orthogonalize(matrices, dtype)
    assert found.dtype == torch.float32
    rotated = left.mT @ found @ right  # diagonal if the singular vectors are the same
    values = torch.diagonal(rotated, dim1=-2, dim2=-1)
    assert (values - 1).abs().max() < tolerance
    assert (rotated - torch.diag_embed(values)).abs().max() < (1e-4 if dtype == torch.float32 else 0.1)


def test_zeros_stay_zeros():
    assert not orthogonalize(torch.zeros(2, 4, 8)).any()


def test_weights_of_one_input_channel_are_updated_as_by_adamw():
    weights = [torch.ones(8, 1, 3, 3, requires_grad=True) for _ in range(2)]
    options = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99)}
    for kind, weight in zip((Muon, torch.optim.AdamW), weights, strict=True):
        optimizer = kind([weight], **options)
        for step in range(3):
            weight.grad = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(step))
            optimizer.step()
    assert torch.allclose(*weights, rtol=0, atol=1e-7)


def test_a_resumed_optimizer_equals_an_uninterrupted_one():
    network, resumed = small_network(), small_network()
    optimizer = optimizer_of(network)
    for step in range(4):
        set_gradients(network, step)
        optimizer.step()
        if step == 1:
            state = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    resumed.load_state_dict(state[0])
    continued = optimizer_of(resumed)
    continued.load_state_dict(state[1])
    for step in range(2, 4):
        set_gradients(resumed, step)
        continued.step()
    assert_same_weights(resumed, network, 0)


def test_rates_may_be_tensors_as_in_a_cuda_graph():
    networks = small_network(), small_network()
    for network, lr in zip(networks, (0.01, torch.tensor(0.01)), strict=True):
        optimizer = optimizer_of(network)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for step in range(2):
            set_gradients(network, step)
            optimizer.step()
    assert_same_weights(*networks, 1e-6)


def test_parameters_without_gradients_stay_and_a_closure_is_called():
    used, unused = (torch.ones(4, 4, requires_grad=True) for _ in range(2))

    def closure():
        loss = (used**2).sum()
        loss.backward()
        return loss

    assert float(Muon([used, unused]).step(closure).detach()) == 16
    assert not torch.equal(used, torch.ones(4, 4))
    assert torch.equal(unused, torch.ones(4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "`lr`=-1.0 and"),
        ({"weight_decay": float("nan")}, "`weight_decay`=nan must be 0 or more"),
        ({"momentum": 1.0}, "`momentum`=1.0 and"),
        ({"betas": (0.9, 1.5)}, r"`betas`=\(0.9, 1.5\) must be from 0 up to below 1"),
        ({"dtype": "float16"}, "`dtype`=float16 is unknown. Set one of float32, bfloat16"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        Muon([torch.ones(2, 2, requires_grad=True)], **options)
