"""The kernels on a GPU, where there is one with the library: against float64, and the same bits again."""

import copy

import pytest
import torch

from hashcompile_runtime.cuda import NOTHING, Array, CudaCall, CudaPath, codebook_weight, cuda_kernels
from tests.cuda.network import compiled_network
from tests.cuda.oracle import DTYPES, array, assert_close, layer, numbers


@pytest.fixture(scope="module")
def kernels():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: the CUDA kernels were not run")
    if (found := cuda_kernels()) is None:
        pytest.skip("hashcompile-runtime was built without CUDA: its kernels were not run")
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", CudaPath, ids=str)
@pytest.mark.parametrize("m", [1, 4, 17, 300])
@pytest.mark.parametrize("bits", range(1, 9))
def test_linear(kernels, bits, m, path, dtype):
    if path == CudaPath.GEMV and m > 4:
        return
    n, k = 1000, 1032
    weight, x = layer(bits, n, k), numbers((m, k), dtype)
    on_gpu = {
        name: getattr(weight, name).contiguous().cuda() for name in ("codes", "codebook", "scale", "bias")
    }
    native = codebook_weight(bits, (n, k), 0, *(array(each) for each in on_gpu.values()))
    given, room = x.cuda(), torch.empty(kernels.workspace(m, n), dtype=torch.uint8, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream
    outputs = []
    for _ in range(2):
        y = torch.empty(m, n, dtype=dtype, device="cuda")
        space = Array(room.data_ptr(), room.numel()) if room.numel() else NOTHING
        call = CudaCall(DTYPES[dtype], given.data_ptr(), y.data_ptr(), space, stream, path)
        kernels.linear(native, call, m)
        outputs.append(y.cpu())
    assert torch.equal(*outputs)
    w, held = weight.centroids(dtype), x.double()
    # Tensor cores cut sums where others round them: twice the error.
    product, size = held @ w.T, 2 * (held.abs() @ w.abs().T)
    assert_close(outputs[0], product, size, weight.scale.double(), weight.bias.double(), k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_graph_module(kernels, dtype):
    """Embeddings, convolutions and linear layers, on codebooks and hashed, against the graph on the CPU."""
    model, ids = compiled_network()
    with torch.no_grad():
        wanted = model.graph_module(ids)
        got = copy.deepcopy(model.graph_module).to(dtype).cuda()(ids.cuda()).cpu()
    roundings = {torch.float32: 2.0**-16, torch.float16: 20 * 2.0**-11, torch.bfloat16: 20 * 2.0**-8}
    assert float((got.float() - wanted).norm() / wanted.norm()) < roundings[dtype]
