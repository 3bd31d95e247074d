"""The whole story on a model that trains in seconds: train, compile, export, measure, one table."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.bench import Contender, Result, Settings, bench, contenders
from hashcompile.core.console import progress, quiet, show, table

EPOCHS = 12
SEED = 0


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits: images (count, 1, 8, 8) in 0..1, labels (count,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise hc.ConfigError("the demo needs scikit-learn: pip install 'hashcompile[demo]'") from error
    data = bundled()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    chosen, held_out = train_test_split(
        np.arange(len(labels)), test_size=0.3, random_state=SEED, stratify=data.target
    )
    return Digits(images[chosen], labels[chosen], images[held_out], labels[held_out])


def make_model() -> nn.Sequential:
    """About 280,000 parameters, most in the first linear layer, as in many a small network."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def train(data: Digits) -> nn.Module:
    """Seconds on one core, and the same weights for the same seed."""
    torch.manual_seed(SEED)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    with progress("training", EPOCHS) as bar:
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(data.train_images)).split(64):
                loss = functional.cross_entropy(model(data.train_images[batch]), data.train_labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            bar.advance()
    return model.eval()


def export_fp32(model: nn.Module, example: Tensor, path: Path) -> None:
    """What one ships today: PyTorch's own exporter, every weight as it was trained."""
    batch = torch.export.Dim("batch")
    with quiet():
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )


def accuracy(contender: Contender, data: Digits) -> float:
    """Share of the held-out digits that the file itself gets right."""
    session = (hcrt.session if contender.runtime == "hashcompile" else ort.InferenceSession)(
        contender.model.path
    )
    (name,) = (node.name for node in session.get_inputs())
    scores: npt.NDArray[np.float32] = session.run(None, {name: data.test_images.numpy()})[0]
    return float((scores.argmax(axis=1) == data.test_labels.numpy()).mean())


def run(directory: Path | None = None) -> None:
    """Everything above, in order; the files stay in `directory` if one is given."""
    data = load_digits()
    model = train(data)
    with nullcontext(directory) if directory else TemporaryDirectory() as folder:
        before, after = Path(folder) / "digits_fp32.onnx", Path(folder) / "digits_4bit.onnx"
        before.parent.mkdir(parents=True, exist_ok=True)
        export_fp32(model, data.test_images[:2], before)
        compiled = hc.compile(
            model,
            (data.test_images[:2],),
            method=hc.Codebook(bits=4),
            calibration=[(images,) for images in data.train_images.split(128)],
            seed=SEED,
        )
        compiled.export_onnx(after)
        fp32, ours = contenders([before, after])
        rows = (fp32, replace(ours, runtime="onnxruntime"), ours)
        results = bench(rows, Settings(threads=1, runs=500))
        show(as_table(results, [accuracy(row, data) for row in rows]))


def as_table(results: Sequence[Result], accuracies: Sequence[float]) -> Table:
    names = ("before: fp32, ONNX Runtime", "after: 4 bits, ONNX Runtime", "after: 4 bits, with our library")
    rows = [
        (
            name,
            f"{100 * share:.2f} %",
            f"{row.file_bytes:,}",
            f"{row.p50_ms:.3f}",
            f"{row.p99_ms:.3f}",
        )
        for name, row, share in zip(names, results, accuracies, strict=True)
    ]
    return table(("handwritten digits", ">accuracy", ">bytes on disk", ">p50 ms", ">p99 ms"), rows)
