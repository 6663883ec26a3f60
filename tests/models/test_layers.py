import pytest
import torch
from torch import nn

from soundfold.errors import ArgumentError
from soundfold.models.layers import layer_vectors
from soundfold.models.resnet import ResNet18


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet18(3, width=8).eval()


@torch.no_grad()
def test_the_default_is_the_input_of_the_last_layer(network):
    image = torch.randn(2, 1, 64, 64)
    vectors = layer_vectors(network, image)
    assert vectors.shape == (2, 64)
    torch.testing.assert_close(network.fc(vectors), network(image))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class Tokens(nn.Module):
    """Tokens (B, 5, 4) of an image, and a recurrent layer over them; logits by a 1x1 convolution."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 4)
        self.recurrent = nn.GRU(4, 4, batch_first=True)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, image):
        tokens, _ = self.recurrent(self.embed(image[:, 0]))
        return self.head(tokens.transpose(1, 2)[..., None]).mean(dim=(2, 3))


@torch.no_grad()
def test_maps_and_tokens_are_averaged_over_positions(network):
    image = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(layer_vectors(network, image, "layer4"), network.features(image).mean(dim=(2, 3)))
    tokens, image = Tokens().eval(), torch.randn(2, 1, 5, 6)
    embedded = tokens.embed(image[:, 0])
    torch.testing.assert_close(layer_vectors(tokens, image, "embed"), embedded.mean(dim=1))
    averaged = tokens.recurrent(embedded)[0].mean(dim=1)
    torch.testing.assert_close(layer_vectors(tokens, image, "recurrent"), averaged)
    # the head is a convolution over positions
    torch.testing.assert_close(layer_vectors(tokens, image), averaged)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer5", r"`layer`=layer5 is not a module of Tokens. Did you mean one of head, embed, unused"),
        ("unused", "`layer`=unused of Tokens has no vector per image"),
    ],
)
def test_a_layer_without_vectors_is_refused(layer, message):
    with pytest.raises(ArgumentError, match=message):
        layer_vectors(Tokens(), torch.zeros(2, 1, 5, 6), layer)
