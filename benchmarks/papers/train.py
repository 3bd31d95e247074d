"""Training and classifying, plain enough to be no variable of an experiment."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

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
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """SGD with Nesterov momentum 0.9, weight decay, batches of 128, a rate that falls to zero as a cosine.

    masks: parameters of which entries stay zero, by name. keep: a file in which each epoch is kept, and from which
    training goes on, to the same network; its name tells whatever else these arguments are. moved: images are shifted
    by up to 4 pixels and mirrored, as is usual for CIFAR-10. bf16, which goes with it: products are computed in bf16
    where the CPU or GPU has it, which takes half the time. after: called behind every step, those that were done before
    among them. teacher: a network whose outputs are learnt, at `SOFTENED` times their temperature (Hinton et al.,
    arXiv 1503.02531), instead of labels.
    """
    steps = max(1, round(epochs * len(inputs) / 128))
    optimizer = torch.optim.SGD(model.parameters(), rate, 0.9, nesterov=True, weight_decay=decay)
    whole = max(1, len(inputs) // 128)
    parameters = dict(model.named_parameters())
    done = resume(model, optimizer, keep)
    model.train()
    native = inputs.is_cuda or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    with progress("training", steps) as bar, torch.random.fork_rng():
        for step in range(steps):
            if step % whole == 0:
                torch.manual_seed(seed + step // whole)  # of what the network draws, such as dropout
            order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed + step // whole))
            if step >= done * whole:
                place = step % whole
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
            bar.advance()
            if keep is not None and step >= done * whole and (step + 1) % whole == 0:
                store(model, optimizer, keep, (step + 1) // whole)
    model.eval()


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


MOMENTUM = "momentum_buffer"  # as torch.optim.SGD names it


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, keep: Path | None) -> int:
    """Epochs that were done before; model and optimizer are as after them."""
    if keep is None or not keep.exists():
        return 0
    state = safetensors.torch.load_file(keep)
    epochs = int(state.pop("epochs"))
    for name, parameter in model.named_parameters():
        if (momentum := state.pop(f"{MOMENTUM}.{name}", None)) is not None:
            optimizer.state[parameter][MOMENTUM] = momentum.to(parameter.device)
    model.load_state_dict(state)
    return epochs


def store(model: nn.Module, optimizer: torch.optim.Optimizer, keep: Path, epochs: int) -> None:
    keep.parent.mkdir(parents=True, exist_ok=True)
    held = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        if (momentum := optimizer.state[parameter].get(MOMENTUM)) is not None:
            held[f"{MOMENTUM}.{name}"] = momentum
    state = {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in held.items()
    }  # some share values
    whole = keep.with_suffix(".new")
    safetensors.torch.save_file({**state, "epochs": torch.tensor(epochs)}, whole)
    whole.replace(keep)
