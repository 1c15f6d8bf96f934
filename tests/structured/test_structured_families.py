"""Structured pruning of torchvision's families: each is pruned, or says what it cannot lose.

Their smallest networks, and where these are large, networks of a few of the same blocks.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting, difference
from stages.lib.structured import analysis, coupling, ranking, removal
from tests import families, toys


class Case(NamedTuple):
    """refused: how many layers keep their filters besides the classifier, by a word of the reason;
    largest: the sparsity that can be reached then.
    """

    build: Callable[[], nn.Module]
    refused: dict[str, int] = {}  # noqa: RUF012
    largest: float = 1.0


def small(kind: Callable[..., nn.Module], *sizes, **options) -> Callable[[], nn.Module]:
    return lambda: toys.lived_in(kind(*sizes, num_classes=3, **options))


BLOCKS = [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)]
CASES = {
    **{
        name: Case(lambda name=name: families.build(name))
        for name in ("alexnet", "squeezenet1_1", "mobilenet_v3_small")
    },
    "resnet": Case(small(ResNet, BasicBlock, [1] * 4)),
    "resnext": Case(small(ResNet, Bottleneck, [1] * 4, groups=8, width_per_group=4)),
    "densenet": Case(small(DenseNet, 8, (2, 2, 2), 16)),
    "shufflenet": Case(
        small(ShuffleNetV2, [2, 2, 2], [8, 16, 32, 64, 64]), {"rearranged": 11}, 0.8356
    ),
    "convnext": Case(small(ConvNeXt, BLOCKS), {"layer norm": 8}, 0.7232),
    "vit": Case(
        small(VisionTransformer, 32, 8, 2, 2, 16, 256), {"layer norm": 3, "heads": 2}, 0.7572
    ),
    "swin": Case(
        small(SwinTransformer, [4, 4], 16, [2, 2], [2, 4], [4, 4]),
        {"layer norm": 6, "without calling": 8},
        0.6032,
    ),
}


@pytest.fixture(scope="module", params=CASES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def analysed(name):
    torch.manual_seed(0)
    model = CASES[name].build()
    return model, analysis.analyse(model, families.shape(name))


def test_what_is_refused_is_known(analysed, name):
    reasons = list(analysed[1].refused.values())
    reasons.remove(coupling.CLASSES)
    words = CASES[name].refused
    assert words == Counter(
        next((word for word in words if word in reason), reason) for reason in reasons
    )


@pytest.mark.parametrize(("scope", "sparsity"), [("layer", 0.5), ("global", 0.3)])
def test_the_small_network_computes_what_the_masked_one_does(analysed, name, scope, sparsity):
    model, plan = analysed
    chosen = ranking.choose(model, plan, sparsity, scope)
    masked, small = removal.mask(model, plan, chosen), removal.remove(model, plan, chosen)
    batch = toys.noise(2, families.shape(name))
    assert difference.largest(masked, small, batch) < 1e-9
    assert difference.largest(masked, model, batch) > 1e-3

    before, after = counting.prunable_weights(model), counting.prunable_weights(small)
    assert 1 - after / before == pytest.approx(sparsity, abs=0.02)
    assert counting.parameters(small) < counting.parameters(model)

    logits = small.train()(batch)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    gradients = [parameter.grad for parameter in small.parameters() if parameter.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_sparsity_out_of_reach_names_the_largest(analysed, name):
    with pytest.raises(UserError, match=r"cannot be reached: [\d.]+ is the most") as caught:
        ranking.choose(*analysed, 0.99999, "layer")
    most = float(re.search(r": ([\d.]+) is the most", str(caught.value))[1])
    # Where nothing is refused, one filter (of each group) stays in each layer.
    largest = CASES[name].largest
    assert most == pytest.approx(largest, abs=1e-4 if largest < 1 else 0.03)
