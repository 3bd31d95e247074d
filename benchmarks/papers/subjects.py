"""The trained networks that are compressed, each with its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor, nn
from zoo import cifar, mnist
from zoo.data import MissingDataError

from hashcompile.core.console import show

from .train import top1, train

VGG_WIDTH, VGG_EPOCHS = 16, 3
MLP_WIDTH, MLP_EPOCHS = 2048, 4
LENET_EPOCHS = 6


class Name(StrEnum):
    mlp = "mlp"
    lenet300 = "lenet300"
    lenet5 = "lenet5"
    resnet20 = "resnet20"
    resnet56 = "resnet56"
    vgg = "vgg"


@dataclass(frozen=True)
class Subject:
    name: Name
    title: str
    model: nn.Module
    train: tuple[Tensor, Tensor]  # images and labels for fine-tuning; the first of them calibrate
    test: tuple[Tensor, Tensor]
    rate: float  # of fine-tuning
    moved: bool = False  # fine-tuned on shifted and mirrored images

    def calibration(self, count: int) -> list[tuple[Tensor]]:
        return [(batch,) for batch in self.train[0][:count].split(64)]


def subject(name: Name, folder: Path, images: int, test: int | None) -> Subject:
    """Loaded, or trained here and kept in `folder`. Raises MissingDataError."""
    if name in (Name.resnet20, Name.resnet56):
        depth = int(name.value.removeprefix("resnet"))
        learn, check = cifar.images("train", images), cifar.images("test", test)
        title = f"ResNet-{depth}, CIFAR-10"
        return Subject(name, title, cifar.load(depth), _shuffled(learn), check, 0.01, moved=True)
    data = "fashion_mnist" if name is Name.vgg else "mnist"
    check = mnist.images(data, "test", test)
    learn = mnist.images(data, "train", images)
    if name is Name.lenet5:
        return Subject(name, "LeNet-5, MNIST", mnist.lenet5(), _shuffled(learn), check, 0.01)
    if name is Name.lenet300:
        model = _trained(mnist.lenet300, data, LENET_EPOCHS, 0.1, folder / "lenet300")
        title = f"LeNet-300-100, MNIST, trained here for {LENET_EPOCHS} epochs"
        return Subject(name, title, model, _shuffled(learn), check, 0.01)
    if name is Name.mlp:
        model = _trained(lambda: mnist.mlp(MLP_WIDTH), data, MLP_EPOCHS, 0.05, folder / f"mlp{MLP_WIDTH}")
        title = f"MLP 784-{MLP_WIDTH}-{MLP_WIDTH}-10, MNIST, trained here for {MLP_EPOCHS} epochs"
        return Subject(name, title, model, _shuffled(learn), check, 0.01)
    model = _trained(lambda: mnist.vgg(VGG_WIDTH), data, VGG_EPOCHS, 0.1, folder / f"vgg{VGG_WIDTH}")
    title = f"VGG-16-BN, {VGG_WIDTH} to {8 * VGG_WIDTH} channels, Fashion-MNIST, trained here for {VGG_EPOCHS} epochs"
    return Subject(name, title, model, _shuffled(learn), check, 0.02)


def subjects(names: Iterable[Name], folder: Path, images: int, test: int) -> Iterator[tuple[Subject, float]]:
    """One after the other, with its accuracy in percent, and its title on stdout; one without data is skipped aloud."""
    for name in names:
        try:
            given = subject(name, folder, images, test)
        except MissingDataError as error:
            show(f"skipped {name}: {error}")
            continue
        whole = top1(given.model, *given.test)
        show(f"{given.title}: {whole:.2f} % of {len(given.test[1])} test images")
        yield given, whole


def _trained(make: Callable[[], nn.Module], data: str, epochs: int, rate: float, stem: Path) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    keep = stem.with_name(f"{stem.name}_{epochs}.safetensors")
    train(model, *mnist.images(data, "train"), epochs=epochs, rate=rate, keep=keep)
    return model


def _shuffled(images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(images[1]), generator=torch.Generator().manual_seed(1))
    return images[0][order], images[1][order]
