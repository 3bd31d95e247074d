"""Capture: the batch stays symbolic, the user's model stays as it was, and every refusal says what to do."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
from hashcompile.capture import capture


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(x) - 2 * y


class Apart(nn.Module):
    """Two inputs whose batches have nothing to do with one another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x), self.fc(y)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if y.sum() > 0:  # the branch
            return y
        return -y


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).reshape(4, 2, 4)


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def line_of(module: type, text: str) -> int:
    lines, first = inspect.getsourcelines(module)
    return first + next(i for i, line in enumerate(lines) if text in line)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_stays_symbolic(batch: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 5)).eval()
    captured = capture(model, (rand(batch, 3, 6, 6),))
    assert captured.signature.shapes == (("batch", 3, 6, 6),)
    assert captured.signature.batch == "batch"
    for size in (1, 3, 7):
        x = rand(size, 3, 6, 6)
        torch.testing.assert_close(captured.graph(x), model(x), rtol=0, atol=0)


def test_without_dynamic_batch_sizes_are_fixed() -> None:
    captured = capture(FixedBatch(), (rand(4, 8),), dynamic_batch=False)
    assert captured.signature.shapes == ((4, 8),)
    assert captured.signature.batch is None


@pytest.mark.parametrize("size", [1, 5])
def test_dynamic_shapes_of_torch_export(size: int) -> None:
    sequence = torch.export.Dim("sequence")
    model = nn.Linear(8, 4)
    captured = capture(model, (rand(2, size, 8),), dynamic_shapes=({1: sequence},))
    (shape,) = captured.signature.shapes
    assert (shape[0], shape[2]) == (2, 8) and isinstance(shape[1], str)
    for length in (1, 9):
        torch.testing.assert_close(
            captured.graph(rand(2, length, 8)), model(rand(2, length, 8)), rtol=0, atol=0
        )


@pytest.mark.parametrize("keys", ["xy", "yx"])
def test_inputs_by_name_in_any_order(keys: str) -> None:
    model, values = Two().eval(), {"x": rand(3, 8), "y": rand(3, 8) + 1}
    captured = capture(model, {key: values[key] for key in keys})
    assert captured.signature.keywords
    assert set(captured.signature.names) == {"x", "y"}
    wanted = model(**values)
    torch.testing.assert_close(captured.graph(x=values["x"], y=values["y"]), wanted, rtol=0, atol=0)
    torch.testing.assert_close(captured.graph(y=values["y"], x=values["x"]), wanted, rtol=0, atol=0)


class Loose(nn.Module):
    """The sum of what a layer makes of its inputs, of which `forward` does not say how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, first: Tensor, *others: Tensor, **named: Tensor) -> Tensor:
        return sum((self.layer(x) for x in (*others, *named.values())), self.layer(first))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("own", [False, True])
def test_inputs_that_forward_takes_as_args(count: int, own: bool) -> None:
    model, inputs = Loose().eval(), tuple(torch.randn(5, 4) for _ in range(count))
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs) if own else None
    captured = capture(model, inputs[:1] * count, dynamic_shapes=shapes)
    assert captured.signature.arguments == ("first", "others_0", "others_1", "others_2")[:count]
    assert captured.signature.shapes == (("batch", 4),) * count
    torch.testing.assert_close(captured.graph(*(x[:3] for x in inputs)), model(*(x[:3] for x in inputs)))


def test_inputs_that_forward_takes_as_kwargs() -> None:
    x = torch.randn(2, 4)
    with pytest.raises(
        hc.CaptureError, match=r"input 'second' is one of forward's \*\*kwargs.*\n.*names its inputs"
    ):
        capture(Loose(), {"first": x, "second": x})


def test_one_tensor_is_one_input() -> None:
    model = nn.Linear(8, 4)
    assert capture(model, rand(2, 8)).signature.shapes == (("batch", 8),)


def test_inputs_of_different_batch() -> None:
    model = Apart().eval()
    captured = capture(model, (rand(4, 8), rand(3, 8)))
    x, y = rand(2, 8), rand(5, 8)
    for got, wanted in zip(captured.graph(x, y), model(x, y), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_inputs_of_different_batch_can_be_called_again() -> None:
    model = Apart().eval()
    x, y = rand(4, 8), rand(3, 8)
    compiled = hc.compile(model, (x, y), calibration=[(x, y)])
    assert [part.shape for part in compiled(x, y)] == [(4, 8), (3, 8)]


def test_an_input_of_batch_one_that_broadcasts() -> None:
    model = Two().eval()
    captured = capture(model, (rand(4, 8), rand(1, 8)))
    torch.testing.assert_close(
        captured.graph(rand(4, 8), rand(1, 8)), model(rand(4, 8), rand(1, 8)), rtol=0, atol=0
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_not_changed(training: bool) -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 32, 3), nn.BatchNorm1d(32), nn.Dropout(), nn.Flatten(), nn.Linear(192, 9)
    )
    model.train(training)
    model[0].eval()  # flags are kept one by one
    flags = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    storages = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    x = rand(8, 4, 8)
    kept = x.clone()
    compiled = hc.compile(model, (x,), calibration=[(x,)])
    with torch.no_grad():
        for parameter in compiled.graph_module.parameters():
            parameter.add_(1)  # nothing is shared
    assert [module.training for module in model.modules()] == flags
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == storages
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, kept)


@pytest.mark.parametrize("model", [lambda x: x, "net", None, nn.Linear])
def test_what_is_no_module(model: Any) -> None:
    with pytest.raises(hc.ConfigError, match=r"torch\.nn\.Module"):
        hc.compile(model, (rand(2, 8),))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite(value: float) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model[1].weight[2, 3] = value
    with pytest.raises(hc.WeightError, match=r"1\.weight holds 1 NaN or infinite values of 64"):
        hc.compile(model, (rand(2, 8),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_dtype(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(64, 64)).to(dtype)
    with pytest.raises(hc.WeightError, match=rf"layer 0: .*{dtype}.*float32.*model\.float\(\)"):
        hc.compile(model, (rand(2, 64).to(dtype),))


def test_a_model_without_values() -> None:
    with torch.device("meta"):
        model = nn.Linear(8, 8)
    with pytest.raises(hc.WeightError, match="weight is on the meta device"):
        hc.compile(model, (rand(2, 8),))


def test_a_lazy_model() -> None:
    with pytest.raises(hc.HashcompileError, match="weight"):
        hc.compile(nn.LazyLinear(8), (rand(2, 8),))


def test_control_flow_on_values_names_the_users_line() -> None:
    with pytest.raises(hc.CaptureError) as caught:
        hc.compile(Branch(), (rand(4, 8),))
    text = str(caught.value)
    assert f"{__file__}:{line_of(Branch, '# the branch')}" in text
    assert "torch.where" in text


def test_an_error_in_forward_names_the_users_line() -> None:
    with pytest.raises(hc.CaptureError) as caught:
        hc.compile(Two(), (rand(4, 8), rand(4, 7)))
    assert f"{__file__}:{line_of(Two, 'return self.fc(x)')}" in str(caught.value)


def test_a_model_that_fixes_its_batch() -> None:
    with pytest.raises(hc.CaptureError, match="fixes its batch size") as caught:
        hc.compile(FixedBatch(), (rand(4, 8),))
    assert "dynamic_batch=False" in str(caught.value)
    assert hc.compile(FixedBatch(), (rand(4, 8),), dynamic_batch=False)(rand(4, 8)).shape == (4, 2, 4)


@pytest.mark.parametrize(
    "inputs", [(rand(4, 8),), (rand(4, 8),) * 3, {"x": rand(4, 8)}, {"x": rand(4, 8), "z": rand(4, 8)}]
)
def test_the_wrong_inputs_for_forward(inputs: Any) -> None:
    with pytest.raises(hc.CaptureError, match="example_inputs"):
        hc.compile(Two(), inputs)


@pytest.mark.parametrize("inputs", [None, (), {}, [], "x", 3])
def test_no_inputs(inputs: Any) -> None:
    with pytest.raises(hc.ConfigError, match="example_inputs"):
        hc.compile(nn.Linear(8, 8), inputs)


@pytest.mark.parametrize("other", [3, 0.5, True, "x"])
def test_an_input_that_is_no_tensor(other: Any) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor, other: Any) -> Tensor:
            return self.fc(x) * (2 if other == "x" else other)

    with pytest.raises(hc.CaptureError, match=r"'other'.*only tensors"):
        hc.compile(Scaled(), (rand(4, 8), other))


AUTO = torch.export.Dim.AUTO


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        ((rand(4, 8),), ({0: AUTO}, {0: AUTO})),
        ((rand(4, 8), rand(4, 8)), ({0: AUTO},)),
        ({"x": rand(4, 8), "y": rand(4, 8)}, {"z": {0: AUTO}}),
    ],
)
def test_dynamic_shapes_that_do_not_fit(inputs: Any, shapes: Any) -> None:
    with pytest.raises((hc.ConfigError, hc.CaptureError)):
        hc.compile(Two(), inputs, dynamic_shapes=shapes)


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        ({"x": rand(4, 8), "y": rand(4, 8)}, ({0: AUTO}, {0: AUTO})),
        ((rand(4, 8), rand(4, 8)), ({5: AUTO}, {0: AUTO})),
    ],
    ids=["a tuple for a dict", "no such dim"],
)
def test_dynamic_shapes_of_another_form(inputs: Any, shapes: Any) -> None:
    with pytest.raises((hc.ConfigError, hc.CaptureError)):
        hc.compile(Two(), inputs, dynamic_shapes=shapes)


def test_an_unknown_arithmetic() -> None:
    with pytest.raises(hc.ConfigError, match=r"compute='int4'.*int8.*float"):
        hc.compile(nn.Linear(8, 8), (rand(2, 8),), compute="int4")  # type: ignore[arg-type]


class AddsInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.add_(1))


def test_a_model_that_writes_to_its_input_leaves_the_users_tensors_alone() -> None:
    x, batch = rand(4, 64), rand(8, 64)
    kept = x.clone(), batch.clone()
    hc.compile(AddsInPlace(), (x,), calibration=[(batch,)])
    assert torch.equal(x, kept[0]) and torch.equal(batch, kept[1])


class Stateful(nn.Module):
    """Counts its calls, in the ways in which people write that."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(2))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "in place":
            self.calls += 1
        elif self.how == "assigned":
            self.calls = self.calls + 1
        elif self.how == "element":
            self.calls[0] = x.sum()
        elif self.how == "parameter":
            with torch.no_grad():
                self.fc.bias.copy_(x.mean(0))
        elif self.how == "own":  # of what it made itself: no state
            y = self.calls.clone()
            y += 1
            return self.fc(x) + y[0]
        return self.fc(x) + self.calls[0]


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_that_rescales_its_rows(kind: type[nn.Module]) -> None:
    model = nn.Sequential(kind(50, 8, max_norm=1.0))
    with pytest.raises(
        hc.CaptureError, match=r"(?s)changes '0.weight' .*what to do: set max_norm .* to None"
    ):
        capture(model, (torch.zeros(2, 3, dtype=torch.long),))


@pytest.mark.parametrize("how", ["in place", "assigned", "element", "parameter"])
def test_a_model_that_changes_its_state(how: str) -> None:
    name = "fc.bias" if how == "parameter" else "calls"
    with pytest.raises(hc.CaptureError, match=rf"(?s)changes '{name}' while it runs.*what to do") as caught:
        capture(Stateful(how), (rand(2, 8),))
    assert "has no state" in str(caught.value)


def test_a_model_that_changes_what_it_made_itself() -> None:
    capture(Stateful("own"), (rand(2, 8),))


class Chance(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if self.how == "off":
            y = nn.functional.dropout(y, 0.5, self.training)
            return nn.functional.scaled_dot_product_attention(y, y, y)
        if self.how == "dropout":
            return nn.functional.dropout(y, 0.5, training=True)
        if self.how == "attention":
            return nn.functional.scaled_dot_product_attention(y, y, y, dropout_p=0.1)
        return y + torch.rand_like(y)


@pytest.mark.parametrize("how", ["dropout", "attention", "noise"])
def test_a_model_that_draws_random_numbers(how: str) -> None:
    with pytest.raises(
        hc.CaptureError, match=r"(?s)draws random numbers in .*test_capture.py:\d+.*what to do"
    ):
        capture(Chance(how), (rand(2, 8),))


def test_dropout_that_is_off_is_no_chance() -> None:
    capture(Chance("off"), (rand(2, 8),))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_a_hook_computes_for_each_run() -> None:
    model, x = nn.utils.weight_norm(nn.Linear(4, 3)).eval(), torch.randn(2, 4)
    assert not model.weight.is_leaf  # which deepcopy refuses
    graph = capture(model, (x,)).graph
    assert {name for name, _ in graph.named_parameters()} == {"bias", "weight_g", "weight_v"}
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
