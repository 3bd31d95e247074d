"""Training and classifying, plain enough to be no variable of an experiment."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from zoo.checkpoint import Checkpoint, Schedule

from hashcompile.core.console import progress

CHUNK = 250
SOFTENED = 4.0


def top1(model: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor) -> float:
    """Percent of the images classified right."""
    hits = 0
    with torch.no_grad():
        for images, right in zip(inputs.split(CHUNK), labels.split(CHUNK), strict=True):
            hits += int((model(images).argmax(1) == right).sum())
    return 100 * hits / len(labels)


def train(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epochs: float,
    rate: float,
    masks: dict[str, Tensor] | None = None,
    keep: Path | None = None,
    seed: int = 0,
    moved: bool = False,
    bf16: bool = False,
    decay: float = 5e-4,
    after: Callable[[], None] = lambda: None,
    schedule: Schedule | None = None,
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """SGD with Nesterov momentum 0.9, weight decay, batches of 128, a rate that falls to zero as a cosine.

    masks: parameters of which entries stay zero, by name. keep: a file in which each epoch is kept, and each minute of
    a long one, and from which training goes on, to the same network; its name tells whatever else these arguments are.
    moved: images are shifted by up to 4 pixels and mirrored, as is usual for CIFAR-10. bf16, which goes with it:
    products are computed in bf16 where the CPU or GPU has it, which takes half the time. after: called behind every
    step, those that were done before among them. schedule: stepped behind every step, and kept with the network: its
    state is not told by the number of steps alone. teacher: a network whose outputs are learnt, at `SOFTENED` times
    their temperature (Hinton et al., arXiv 1503.02531), instead of labels.
    """
    steps = max(1, round(epochs * len(inputs) / 128))
    optimizer = torch.optim.SGD(model.parameters(), rate, 0.9, nesterov=True, weight_decay=decay)
    whole = max(1, len(inputs) // 128)
    parameters = dict(model.named_parameters())
    model.train()
    native = inputs.is_cuda or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    with progress("training", steps) as bar, torch.random.fork_rng():
        checkpoint = Checkpoint(keep, whole, model, [optimizer], generators(inputs.device), schedule)
        for _ in range(checkpoint.done):
            after()
            bar.advance()
        for step in range(checkpoint.done, steps):
            epoch, place = divmod(step, whole)
            if place == 0:
                torch.manual_seed(seed + epoch)  # of what the network draws, such as dropout
            order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed + epoch))
            batch = order[128 * place : 128 * place + 128]
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            images = shifted(inputs[batch], seed + step) if moved else inputs[batch]
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=(moved or bf16) and native):
                logits = model(images)
                with torch.no_grad():
                    wanted = teacher(images).float() if teacher else labels[batch]
            loss(logits.float(), wanted).backward()
            optimizer.step()
            for name, mask in (masks or {}).items():
                parameters[name].data *= mask
            after()
            if schedule is not None:
                schedule.step()
            bar.advance()
            checkpoint.reached(step + 1, end=step + 1 == steps)
    model.eval()


def generators(device: torch.device) -> list[torch.Generator]:
    """Those that a network draws from."""
    found = [torch.default_generator]
    return found if device.type == "cpu" else [*found, torch.cuda.default_generators[device.index or 0]]


def loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy, with labels (B,) or with what softened logits (B, classes) say; the latter's gradients are of the
    same size whatever `SOFTENED` is.
    """
    if wanted.ndim == 1:
        return nn.functional.cross_entropy(logits, wanted)
    return SOFTENED**2 * nn.functional.cross_entropy(logits / SOFTENED, (wanted / SOFTENED).softmax(1))


def shifted(images: Tensor, seed: int, most: int = 4) -> Tensor:
    """Each of `images: (B, C, H, W)` moved by up to `most` pixels either way, zeros moving in, and mirrored or not."""
    draw = torch.Generator().manual_seed(seed)
    batch, _, height, width = images.shape
    down, right = torch.randint(2 * most + 1, (2, batch, 1), generator=draw)
    mirrored = torch.rand(batch, 1, generator=draw) < 0.5
    rows = down + torch.arange(height)
    columns = right + torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width))
    padded = nn.functional.pad(images, (most, most, most, most))
    each = torch.arange(batch)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
