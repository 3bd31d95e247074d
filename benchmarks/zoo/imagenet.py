"""ResNet-18 and -50 (He et al. 2016) and MobileNetV2 (Sandler et al. 2018) for 1,000 classes of images.

Parameters have torchvision's names, so its weights load; here they are random, which is enough for speed.
ResNet-50 strides in its 3x3 convolutions ("v1.5"), as all published figures of it do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 1_000
SIDE = 224  # pixels

# expansion, channels, blocks, stride of the first: table 2 of the MobileNetV2 paper
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` -> `(B, width, H / stride, W / stride)`."""
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; the middle is a quarter as wide."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` -> `(B, 4 width, H / stride, W / stride)`."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class ResNet(nn.Module):
    """A 7x7 stem and four stages of 64, 128, 256 and 512 channels."""

    def __init__(self, block: type[Basic] | type[Bottleneck], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs, stages = 64, []
        for i, depth in enumerate(depths):
            width, stride = 64 << i, 1 if i == 0 else 2
            outputs = width * block.expansion
            rest = (block(outputs, width, 1) for _ in range(depth - 1))
            stages.append(nn.Sequential(block(inputs, width, stride), *rest))
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (B, 3, H, W) float32` -> `logits: (B, 1000)`."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Inverted(nn.Module):
    """1x1 to `expansion` times as many channels, depthwise 3x3, 1x1 back; a shortcut where the sizes are equal."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        widen = [_conv_relu6(inputs, width, 1)] if expansion > 1 else []
        depthwise = _conv_relu6(width, width, 3, stride, groups=width)
        self.conv = nn.Sequential(*widen, depthwise, _conv(width, outputs, 1), nn.BatchNorm2d(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` -> `(B, outputs, H / stride, W / stride)`."""
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Width 1.0."""

    def __init__(self) -> None:
        super().__init__()
        inputs, features = 32, [_conv_relu6(3, 32, 3, 2)]
        for expansion, outputs, blocks, stride in INVERTED:
            for i in range(blocks):
                features.append(Inverted(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*features, _conv_relu6(inputs, 1_280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1_280, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """`x: (B, 3, H, W) float32` -> `logits: (B, 1000)`."""
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _conv_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _conv(inputs, outputs, kernel, stride, groups)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Nothing, or a 1x1 convolution where sizes differ."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet(Basic, (2, 2, 2, 2)),
    "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3)),
    "mobilenet_v2": MobileNetV2,
}


def load(name: str) -> nn.Module:
    """The network with random weights, the same each time; its batch norms have seen noise, which keeps values sane."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    with torch.no_grad():
        model.train()(images(8, 64))
    return model.eval()


def images(batch: int, side: int = SIDE, seed: int = 0) -> Tensor:
    """Noise like normalised pixels, `(batch, 3, side, side) float32`."""
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
