"""A compressed graph on a device with kernels: its layers compute on their codes, by our operators of PyTorch.

The device is the CPU here, whose kernels are those of the emulated GPU.
"""

import copy

import pytest
import torch

import hashcompile as hc
from hashcompile.core import device_ops, on_codes
from hashcompile.core.encoded import encoded_weights
from tests.cuda.network import compiled_network
from tests.cuda.oracle import layer, numbers

LAYERS = 6  # `few` has groups of one row each, and is decoded


@pytest.fixture(scope="module")
def compiled():
    return compiled_network()


@pytest.fixture
def kernels(emulated, monkeypatch):
    for module in (device_ops, on_codes):
        monkeypatch.setattr(module, "kernels_for", lambda _device: emulated)
    return emulated


def test_layers_compute_on_codes(compiled, kernels, monkeypatch):
    model, ids = compiled
    assert len(encoded_weights(model.graph_module)) == LAYERS + 1
    graph = copy.deepcopy(model.graph_module)
    before = kernels.launches()
    with torch.no_grad():
        got = graph(ids)
        launched = kernels.launches() - before
        monkeypatch.setattr(on_codes, "kernels_for", lambda _device: None)
        wanted = graph(ids)
    assert launched >= LAYERS  # and a second one where K is split
    assert kernels.launches() == before + launched
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_half_precision(compiled, kernels, monkeypatch):
    model, ids = compiled
    graph = copy.deepcopy(model.graph_module).half()
    with torch.no_grad():
        got = graph(ids)
        monkeypatch.setattr(on_codes, "kernels_for", lambda _device: None)
        wanted = copy.deepcopy(model.graph_module).float()(ids)
    assert got.dtype == torch.float16
    assert (
        float((got.float() - wanted).norm() / wanted.norm()) < 20 * 2**-11
    )  # a rounding or two in each layer


@pytest.mark.parametrize("why", ["gradients", "export"])
def test_decoded_where_someone_looks_inside(compiled, kernels, why):
    model, ids = compiled
    graph = copy.deepcopy(model.graph_module)
    before = kernels.launches()
    if why == "gradients":
        graph(ids).sum().backward()
        assert all(code.rows().requires_grad for code in encoded_weights(graph).values())
    else:
        with torch.no_grad():
            torch.export.export(graph, (ids,))
    assert kernels.launches() == before


def test_indices_that_change_are_packed_anew(compiled, kernels):
    graph = copy.deepcopy(compiled[0].graph_module)
    code = encoded_weights(graph)["coded.weight"]
    x = torch.randn(3, 40)
    with torch.no_grad():
        torch.ops.aten.linear.default(x, code())
        code.indices.zero_()
        got = torch.ops.aten.linear.default(x, code())
        assert torch.allclose(got, x @ code.decoded().T, atol=1e-5)


def test_any_other_reader_gets_the_dense_weight(compiled, kernels):
    code = encoded_weights(compiled[0].graph_module)["coded.weight"]
    with torch.no_grad():
        assert torch.equal(code() * 2, code.decoded() * 2)
        assert torch.equal(torch.cat([code(), code()]), code.decoded().repeat(2, 1))
        square = torch.ops.aten.linear.default(code(), code())
        assert torch.allclose(square, code.decoded() @ code.decoded().T, atol=1e-5)
        double = torch.randn(2, 40, dtype=torch.float64)
        with pytest.raises(RuntimeError, match="dtype"):
            torch.ops.aten.linear.default(double, code())


def test_operators_are_well_formed():
    """PyTorch's own checks: schema, fake tensors, tracing; by what they mean without kernels."""
    weight = layer(4, 40, 16)
    tables = weight.codebook, weight.scale
    codes = weight.codes.view(2, 2, 1, 2, 16, 4)
    x = numbers((3, 16), torch.float32)
    torch.library.opcheck(torch.ops.hashcompile.codebook_linear, (x, codes, *tables, weight.bias, 4, 0))
    ids = torch.tensor([[3, 0], [39, 3]])
    torch.library.opcheck(
        torch.ops.hashcompile.codebook_embedding, (ids, codes, *tables, 4, 0, 16, torch.float32)
    )
    image = numbers((1, 4, 5, 5), torch.float32).view(1, 4, 5, 5)
    window = [2, 2], [1, 1], [0, 1, 1, 0], [1, 1], 1
    torch.library.opcheck(
        torch.ops.hashcompile.codebook_conv2d, (image, codes, *tables, weight.bias, 4, 0, *window)
    )


def test_hashed_operators_need_kernels():
    with pytest.raises(hc.HashcompileError, match="on cpu"):
        torch.ops.hashcompile.hashed_linear(torch.ones(1, 16), torch.ones(256), None, None, 1, 16)


def test_operators_refuse_what_kernels_cannot_read(kernels):
    weight, x = layer(4, 40, 16), numbers((3, 16), torch.float32)
    given = weight.codes.view(2, 2, 1, 2, 16, 4), weight.codebook, weight.scale, None, 4, 0
    with pytest.raises(hc.HashcompileError, match=r"codebook is torch.float16 on cpu; wanted torch.float32"):
        torch.ops.hashcompile.codebook_linear(x, given[0], given[1].half(), *given[2:])
    with pytest.raises(hc.HashcompileError, match=r"no kernel of ours computes torch.float64"):
        torch.ops.hashcompile.codebook_linear(x.double(), *given)
    scattered = torch.stack([weight.scale, weight.scale], dim=1)[:, 0]
    got = torch.ops.hashcompile.codebook_linear(x, *given[:2], scattered, *given[3:])
    assert torch.equal(got, torch.ops.hashcompile.codebook_linear(x, *given))
