"""Libraries for TVM: they compute what the ONNX file computes with our kernels, alone in a process, on any threads."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.core.errors import ConfigError, ExportError
from hashcompile.core.method import Compute
from tests.models import build, normal

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from hashcompile.lower.tvm_library import runner  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_nodes import ALIGNMENT, CONSTANT, MAGIC, TvmNode, encode  # noqa: E402


@pytest.mark.parametrize("compute", ["float", "int8"])
@pytest.mark.parametrize("name", ["cnn", "attention", "embedding"])
def test_a_library_computes_what_the_onnx_file_does(name: str, compute: Compute, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(3), compute=compute)
    compiled.export_onnx(tmp_path / "m.onnx")
    (check,) = compiled.export_tvm(tmp_path / "m.so")
    assert check.runtime == "tvm" and check.error <= check.tolerance
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.so"]
    run, session = runner(tmp_path / "m.so"), hcrt.session(tmp_path / "m.onnx", threads=1)
    for batch in (1, 2, 5):
        given = inputs(batch)
        wanted = session.run(
            None, {e.name: v.numpy() for e, v in zip(session.get_inputs(), given, strict=True)}
        )
        for a, b in zip(run(given), wanted, strict=True):
            # our kernels give the same bits to either host; what lies between them is computed in another order
            torch.testing.assert_close(a, torch.from_numpy(b), rtol=1e-4, atol=1e-5)


ALONE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "onnxruntime", "hashcompile", "hashcompile_runtime")))
import numpy as np, tvm
from tvm import relax
main = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())["main"]
x = np.load(sys.argv[2])
np.save(sys.argv[3], main(tvm.runtime.tensor(x))[0].numpy())
try:
    main(tvm.runtime.tensor(x[:, :-1].copy()))
except Exception as error:
    print("refused", error)
"""


def test_a_library_needs_nothing_of_ours_and_the_threads_change_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(2))
    compiled.export_tvm(tmp_path / "m.so")
    np.save(tmp_path / "x.npy", inputs(3)[0].numpy())
    found = []
    monkeypatch.setenv(
        "TVM_THREAD_POOL_SPIN_COUNT", "0"
    )  # on a busy machine a thread's last spin takes minutes
    for threads in ("1", "2"):
        monkeypatch.setenv("TVM_NUM_THREADS", threads)
        names = [str(tmp_path / name) for name in ("m.so", "x.npy", f"y{threads}.npy")]
        done = subprocess.run([sys.executable, "-c", ALONE, *names], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("refused"), "another number of channels"
        found.append(np.load(names[-1]))
    assert np.array_equal(*found)
    (here,) = runner(tmp_path / "m.so")(inputs(3))
    assert np.array_equal(found[0], here.numpy())


def test_what_a_kernel_refuses_names_the_node(tmp_path: Path) -> None:
    model, inputs = build("embedding")
    hc.compile(model, inputs(2)).export_tvm(tmp_path / "m.so")
    (given,) = inputs(2)
    with pytest.raises(Exception, match=r"CodebookEmbedding .*: "):
        runner(tmp_path / "m.so")((torch.full_like(given, 10**6),))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("embedding", hc.Hashed(1 / 4)),  # hashes what is read, in ONNX alone
        ("transposed", hc.Codebook(4)),
        ("mlp", hc.Sparse(0.5)),
    ],
)
def test_what_has_no_kernel_is_dense_in_the_library(name: str, method: object, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(3), method, compute="float")
    compiled.export_tvm(tmp_path / "m.so")
    for batch in (1, 4):
        (got,) = runner(tmp_path / "m.so")(inputs(batch))
        torch.testing.assert_close(got, compiled(*inputs(batch)).detach(), rtol=1e-4, atol=1e-5)


def test_an_id_without_a_row_reads_nothing_else(tmp_path: Path) -> None:
    model, inputs = build("embedding")
    hc.compile(model, inputs(2), hc.PruneChannels(0)).export_tvm(tmp_path / "m.so")
    (given,) = inputs(2)
    given[0, 0] = 10**6
    (got,) = runner(tmp_path / "m.so")((given,))
    assert bool(got[0, 0].isnan().all()) and bool(got[0, 1:].isfinite().all())


class Odd(nn.Module):
    """Computes something that no importer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.layer(x))


def test_what_tvm_cannot_import_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.so").write_text("the old one")
    compiled = hc.compile(Odd(), normal(16)(2))
    with pytest.raises(ExportError, match=r"bessel_j0.*test_tvm\.py"):
        compiled.export_tvm(tmp_path / "m.so")
    assert (tmp_path / "m.so").read_text() == "the old one"


def test_targets_that_are_none_are_refused() -> None:
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    for target in ("gpu", 3, tvm.target.Target({"kind": "c"})):
        with pytest.raises(ConfigError, match="target"):
            compiled.export_tvm("m.so", target=target)


def test_a_machine_without_tvm_or_a_compiler_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    with monkeypatch.context() as change:
        change.setenv("PATH", str(tmp_path))
        with pytest.raises(ExportError, match="C\\+\\+ compiler"):
            compiled.export_tvm(tmp_path / "m.so")
    for name in ("hashcompile.lower.tvm", "hashcompile.lower.tvm_library"):
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name)
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(ConfigError, match=r"pip install 'hashcompile\[tvm\]'"):
        compiled.export_tvm(tmp_path / "m.so")
    assert not (tmp_path / "m.so").exists()


def test_wide_outputs_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(
        nn.Linear(32, 12_000), normal(32)(2), hc.Wide(), calibration=[normal(32)(512)], compute="float"
    )
    with pytest.raises(ExportError, match="wide outputs"):
        compiled.export_tvm(tmp_path / "m.so")


def test_constants_are_aligned_and_stored_once() -> None:
    codes = torch.arange(3, dtype=torch.uint8)
    scale = torch.tensor([1.0, 2.0])
    nodes = [
        TvmNode(
            "A", "a", {"bits": 4, "low": -1.5, "pads": (1, 2), "activation": "relu"}, [0, codes, None, scale]
        ),
        TvmNode("B", "b", {}, [scale, 0]),
    ]
    data = encode(nodes)
    assert data.startswith(MAGIC + struct.pack("<I", 2))
    places = [
        struct.unpack_from("<Q", data, at + 12 + 8)[0]
        for at in range(len(data))
        if data[at : at + 4] == struct.pack("<i", CONSTANT)
    ]
    assert len(places) == 3 and places[1] == places[2], "the scale, which two nodes read, is there once"
    assert all(place % ALIGNMENT == 0 for place in places)
    assert data[places[0] : places[0] + 3] == bytes([0, 1, 2])
    assert struct.unpack_from("<2f", data, places[1]) == (1.0, 2.0)
    assert len(data) % ALIGNMENT == 0
    with pytest.raises(ExportError, match=r"A 'a'.*float64"):
        encode([TvmNode("A", "a", {}, [scale.double()])])
