"""Libraries for TVM: they compute what the ONNX file computes with our kernels, alone in a process, on any threads."""

from __future__ import annotations

import platform
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.bench import Settings, bench, contenders
from hashcompile.bench_inputs import Sizes
from hashcompile.core.errors import ArtifactError, ConfigError, ExportError
from hashcompile.core.method import Compute
from hashcompile.model_file import read
from hashcompile.passes.wide import WideWeight
from tests.models import build, normal

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter  # noqa: E402

from hashcompile.lower.tvm import lower  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_library import platform as platform_of  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_library import runner, values_inside  # noqa: E402 - needs TVM
from hashcompile.lower.tvm_nodes import ALIGNMENT, CONSTANT, MAGIC, TvmNode, encode  # noqa: E402
from hashcompile.lower.tvm_platform import Platform  # noqa: E402
from hashcompile.lower.tvm_rows import ROWS  # noqa: E402


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


@pytest.mark.parametrize(
    ("name", "row", "first"),
    [
        ("tied", "tanh.default", "tanh"),
        ("attention", "div.Tensor", "div"),
        ("chains", "exp.default", "exp"),
    ],
)
def test_a_library_that_is_wrong_is_not_written_and_its_first_wrong_node_is_named(
    name: str, row: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ExportedProgramImporter.create_convert_map

    def twice(value: Any, importer: ExportedProgramImporter) -> Any:
        return importer.block_builder.emit(tvm.relax.op.add(value, value))

    def wrong(importer: ExportedProgramImporter) -> dict[str, Callable[[fx.Node], object]]:
        rows = made(importer)
        return {**rows, row: lambda node: twice(rows[row](node), importer)}

    monkeypatch.setattr(ExportedProgramImporter, "create_convert_map", wrong)
    if right := ROWS.get(row):
        monkeypatch.setitem(ROWS, row, lambda node, importer: twice(right(node, importer), importer))
    model, inputs = (Chains().eval(), normal(3, 8, 8)) if name == "chains" else build(name)
    compiled = hc.compile(model, inputs(3), compute="int8" if name == "chains" else "float")
    line = rf"the first node that differs is {first} \(aten\..*relative error \S+, from \S*\.py:\d+"
    with pytest.raises(hc.VerificationError, match=rf"m\.so differs from the compressed graph: .*{line}"):
        compiled.export_tvm(tmp_path / "m.so")
    assert not list(tmp_path.iterdir())


def test_a_library_that_does_not_run_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(path: Path, device: tvm.runtime.Device) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
        run = runner(path, device)
        return lambda batch: run((batch[0][:, :-1],))

    monkeypatch.setattr("hashcompile.lower.tvm_library.runner", narrow)
    model, inputs = build("mlp")
    compiled = hc.compile(model, inputs(2))
    with pytest.raises(hc.VerificationError, match=r"m\.so does not run in TVM: .*input"):
        compiled.export_tvm(tmp_path / "m.so")
    assert not list(tmp_path.iterdir())


def test_a_library_that_cannot_be_loaded_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def symbols(platform: Platform, _: object) -> tuple[tuple[str, ...], list[Path]]:
        return ("hc_defined_nowhere",), [platform.archive]

    monkeypatch.setattr(Platform, "kernels", symbols)
    model, inputs = build("mlp")
    compiled = hc.compile(model, inputs(2))
    with pytest.raises(hc.VerificationError, match=r"TVM cannot load m\.so: .*hc_defined_nowhere"):
        compiled.export_tvm(tmp_path / "m.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model", "model.tvm", "model.o", "model.tar", "model.so.1", ".so"])
def test_a_name_that_tvm_could_not_load_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    monkeypatch.setitem(sys.modules, "tvm", None)  # nothing of TVM is asked for
    with pytest.raises(ConfigError, match=r"ends in \.so"):
        compiled.export_tvm(tmp_path / name)
    assert not list(tmp_path.iterdir())


class Chains(nn.Module):
    """Two int8 chains, and something between them that ends the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu().neg().exp()).relu()


def test_what_leaves_a_chain_is_known_by_its_node() -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Chains().eval(), normal(3, 8, 8)(2))
    ranges = compiled.ranges.valid(compiled.graph_module)
    lowered = lower(
        compiled.graph_module, compiled.signature, compiled.samples[0], "int8", ranges, expose=True
    )
    assert list(lowered.exposed) == ["relu", "neg", "exp", "relu_1"]


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
    # on a busy machine a thread's last spin takes minutes
    monkeypatch.setenv("TVM_THREAD_POOL_SPIN_COUNT", "0")
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
    ("method", "operators"),
    [
        (hc.Hashed(1 / 4, tile=True), {"HashedLinear"}),
        (hc.Hashed(1 / 4, tile=True, pool="all"), {"HashedLinear"}),
        ([hc.LowRank(rank=12), hc.Codebook(4)], {"CodebookLinear"}),
        ([hc.Sampled(share=0.5), hc.Codebook(2, learn=True)], {"CodebookLinear"}),
        (
            {"0": hc.Sparse(0.6, bits=4), "2": hc.Sparse(pattern="2:4")},
            {"CodebookLinear"},
        ),  # dense, as fp32 is
    ],
)
def test_every_code_has_its_kernel_in_the_library(
    method: Any, operators: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hashcompile.passes.hashed.onnx.DENSE_BYTES", 0)  # small layers take the kernel, too
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    compiled = hc.compile(model, normal(64)(2), method, [normal(64)(32)], compute="float")
    assert compiled.plan.encoded
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    assert {node.operator for node in lowered.nodes} == operators
    compiled.export_tvm(tmp_path / "m.so")
    given = normal(64)(5)
    (got,) = runner(tmp_path / "m.so")(given)
    torch.testing.assert_close(got, compiled(*given).detach(), rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "cnn",
        "strided",
        "same",
        "grouped",
        "depthwise",
        "conv1d",
        "mixed",
        "tied",
        "transposed",
        "conv3d",
    ],
)
def test_what_nobody_compressed_runs_on_our_kernels(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(3), hc.PruneChannels(0), compute="float")
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    left = re.findall(r"R\.nn\.conv\w+|R\.matmul|R\.nn\.batch_norm|R\.nn\.relu", str(lowered.module))
    assert not left and lowered.nodes
    compiled.export_tvm(tmp_path / "m.so")
    for batch in (1, 2, 5):
        (got,) = runner(tmp_path / "m.so")(inputs(batch))
        torch.testing.assert_close(got, compiled(*inputs(batch)).detach(), rtol=1e-4, atol=1e-5)


class Waves(nn.Module):
    """Exponentials in all places: behind a layer, alone, of images, over other dims than the last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = functional.gelu(functional.silu(self.stem(x)) + 1, approximate="tanh")
        x = functional.gelu(self.last(x) * 2)
        scores = self.head(x.flatten(2).transpose(1, 2))
        return x, scores.softmax(-1), scores.log_softmax(2), scores.softmax(1), scores.double().softmax(-1)


def test_exponentials_are_kernels_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Waves().eval(), normal(3, 9, 10)(2), hc.Codebook(4), compute="float")
    given = (compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    lowered = lower(*given)
    names = [node.operator for node in lowered.nodes if node.operator in ("Activation", "Softmax")]
    assert names == ["Activation", "Activation", "Softmax", "Softmax"], "one activation is the stem's own"
    assert str(lowered.module).count("R.nn.softmax") == 2, "over another dim, and in float64"
    assert "R.nn.gelu" not in str(lowered.module) and "R.permute_dims" in str(lowered.module)
    compiled.export_tvm(tmp_path / "m.so")
    for batch in (1, 2, 5):
        for got, wanted in zip(
            runner(tmp_path / "m.so")(normal(3, 9, 10)(batch)),
            compiled(*normal(3, 9, 10)(batch)),
            strict=True,
        ):
            torch.testing.assert_close(got, wanted.detach(), rtol=1e-4, atol=1e-5)
    (values,) = values_inside(lower(*given, expose=True), platform_of("cpu"), [normal(3, 9, 10)(3)])
    shapes = {name: tuple(value.shape) for name, value in values}
    assert shapes["gelu"] == (3, 8, 7, 8) and shapes["gelu_1"] == (3, 6, 5, 6), "images, channels second"


class Rest(nn.Module):
    """Products of activations and norms of groups, most of which kernels compute."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.own = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
        for tensor in (*self.norm.parameters(), *self.own.parameters()):
            nn.init.normal_(tensor)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.norm(x) + self.own(x)
        rows = x.flatten(2)
        seen = rows @ rows.transpose(1, 2), torch.bmm(rows.mT, rows), x @ x
        few = rows[:, :3] @ rows.mT
        return *seen, few, x[:, :1] @ x, rows @ torch.ones(81, 4), (rows.double() @ rows.double().mT)


class NormedChain(nn.Module):
    """What leaves a norm enters a chain of int8 convolutions."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), norm
        self.second, self.third = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.norm(self.first(x).relu())).relu())


@pytest.mark.parametrize("norm", [nn.GroupNorm(4, 32), nn.InstanceNorm2d(32), nn.LayerNorm(8)], ids=str)
def test_a_norm_in_front_of_a_chain(norm: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = normal(3, 8, 8)
    compiled = hc.compile(NormedChain(norm).eval(), inputs(2), hc.Codebook(4), compute="int8")
    checks = (*compiled.export_tvm(tmp_path / "m.so"), *compiled.export_onnx(tmp_path / "m.onnx"))
    assert all(check.error <= check.tolerance for check in checks)
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "int8", {})
    assert [node.operator for node in lowered.nodes].count("Norm") == 1
    held = sum(each.nbytes for node in lowered.nodes for each in node.inputs if isinstance(each, Tensor))
    assert held < 40_000, "codes, and no ones of the size of a group"


def test_products_and_norms_of_groups_are_kernels_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = normal(8, 9, 9)
    compiled = hc.compile(Rest().eval(), inputs(2), hc.PruneChannels(0), compute="float")
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    names = [node.operator for node in lowered.nodes]
    assert sorted(names) == ["MatMul"] * 3 + ["Norm"] * 2
    transposed = [node.attributes["transposed"] for node in lowered.nodes if node.operator == "MatMul"]
    assert transposed == [1, 0, 0], "what is read in another order is not copied"
    assert str(lowered.module).count("R.matmul") == 4, "few rows, broadcasting, other ranks, float64"
    compiled.export_tvm(tmp_path / "m.so")
    for batch in (1, 2, 5):
        for got, wanted in zip(
            runner(tmp_path / "m.so")(inputs(batch)), compiled(*inputs(batch)), strict=True
        ):
            torch.testing.assert_close(got, wanted.detach(), rtol=1e-4, atol=1e-4)


class Images(nn.Module):
    """All that images pass through on their way from layer to layer, and some that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = (
            nn.Conv2d(3, 24, 3, stride=2, padding=1),
            nn.Conv2d(24, 24, 3, padding=1, groups=24),
        )
        self.gate, self.mixed = nn.Conv2d(24, 24, 1), nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=2)
        self.last, self.head = nn.Conv2d(48, 20, 3), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        y = x + self.deep(x)
        y = y * self.gate(functional.adaptive_avg_pool2d(y, 1)).sigmoid()
        y = torch.cat((y, functional.avg_pool2d(self.mixed(y), 3, 1, 1)), dim=1).exp()
        z = self.last(y)
        return self.head(z.mean((2, 3))), functional.interpolate(z, scale_factor=2.0)


def test_images_keep_their_channels_last_between_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Images().eval(), normal(3, 33, 41)(2), hc.PruneChannels(0), compute="float")
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    orders = [node.attributes.get("channels_last", node.operator) for node in lowered.nodes]
    assert orders == [2, "Pool", 3, "Pool", 3, 3, "Pool", 3, "Pool", "CodebookLinear"]
    assert str(lowered.module).count("R.permute_dims") == 1, "in front of what no kernel computes"
    compiled.export_tvm(tmp_path / "m.so")
    run = runner(tmp_path / "m.so")
    for batch in (1, 2, 5):
        for got, wanted in zip(
            run(normal(3, 33, 41)(batch)), compiled(*normal(3, 33, 41)(batch)), strict=True
        ):
            torch.testing.assert_close(got, wanted.detach(), rtol=1e-4, atol=1e-5)


def test_what_is_told_of_an_image_has_the_channels_second(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Images().eval(), normal(3, 33, 41)(2), hc.PruneChannels(0), compute="float")
    given = (compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    (values,) = values_inside(lower(*given, expose=True), platform_of("cpu"), [normal(3, 33, 41)(3)])
    names = [name for name, _ in values]
    assert {"relu", "max_pool2d", "adaptive_avg_pool2d", "avg_pool2d"} <= set(names)
    shapes = {
        node.name: tuple(node.meta["val"].shape[1:])
        for node in compiled.graph_module.graph.nodes
        if node.name in names
    }
    assert {name: tuple(value.shape[1:]) for name, value in values} == shapes


class Apart(nn.Module):
    """Images that somebody else wants, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        added = x.repeat(1, 6, 1, 1)[:, :16]
        y = self.first(x) + added  # an image that no layer made
        return (self.second(y) + y).flip(-1)


def test_an_order_that_somebody_else_wants_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = hc.compile(Apart().eval(), normal(3, 6, 5)(2), hc.PruneChannels(0), compute="float")
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {})
    assert [node.attributes["channels_last"] for node in lowered.nodes] == [0, 0]
    compiled.export_tvm(tmp_path / "m.so")
    (got,) = runner(tmp_path / "m.so")(normal(3, 6, 5)(3))
    torch.testing.assert_close(got, compiled(*normal(3, 6, 5)(3)).detach(), rtol=1e-4, atol=1e-5)


def test_a_model_that_computes_nothing(tmp_path: Path) -> None:
    given = normal(16)(2)
    hc.compile(nn.Identity(), given, hc.PruneChannels(0)).export_tvm(tmp_path / "m.so")
    (got,) = runner(tmp_path / "m.so")(given)
    assert torch.equal(got, given[0])


class Named(nn.Module):
    """Has of its own what the lowering would like to call something."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)
        self.fc.weight_dense = nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.fc.weight_dense


def test_names_of_the_user_stay_his(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = normal(16)(3)
    compiled = hc.compile(Named(), normal(16)(2), hc.PruneChannels(0), compute="float")
    compiled.export_tvm(tmp_path / "m.so")
    (got,) = runner(tmp_path / "m.so")(given)
    torch.testing.assert_close(got, compiled(*given).detach(), rtol=1e-4, atol=1e-5)


def test_an_id_without_a_row_reads_nothing_else(tmp_path: Path) -> None:
    model, inputs = build("embedding")
    hc.compile(model, inputs(2), hc.PruneChannels(0)).export_tvm(tmp_path / "m.so")
    (given,) = inputs(2)
    given[0, 0] = 10**6
    (got,) = runner(tmp_path / "m.so")((given,))
    assert bool(got[0, 0].isnan().all()) and bool(got[0, 1:].isfinite().all())
    (declared,) = read(tmp_path / "m.so").inputs
    assert declared.name == "input", "a library without nodes of ours tells its inputs, too"


def test_targets_that_are_none_are_refused() -> None:
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    for target in ("gpu", 3, tvm.target.Target({"kind": "c"})):
        with pytest.raises(ConfigError, match="target"):
            compiled.export_tvm("m.so", target=target)


X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="this machine is no x86-64")


@X86
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mcpu": "i686"}, "32 bits"),  # LLVM would end the process
        ({"mcpu": "zen4"}, "no CPU zen4 of kind x86_64"),
        ({"mcpu": "znver4", "mtriple": "aarch64-linux-gnu"}, "no CPU znver4 of kind aarch64"),
        ({"mtriple": "i686-linux-gnu"}, "made for this machine, x86_64-linux-gnu, and"),
        ({"mtriple": "x86_64-w64-mingw32"}, "made for this machine, x86_64-linux-gnu, and"),
        ({"mtriple": "x86_64-apple-darwin"}, "made for this machine, x86_64-linux-gnu, and"),
    ],
    ids=str,
)
def test_systems_and_cpus_of_another_kind_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        platform_of(tvm.target.Target({"kind": "llvm", **settings}))


@X86
def test_a_cpu_that_lacks_what_the_code_needs_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else it would be an illegal instruction, while the library is verified."""
    old = {"avx2": False, "fma": False, "avx512f": False}
    monkeypatch.setattr("hashcompile.lower.tvm_platform.cpu_features", lambda: old)
    model, inputs = build("mlp")
    compiled = hc.compile(model, inputs(2))
    with pytest.raises(ConfigError, match="no avx2, fma, so"):
        compiled.export_tvm(tmp_path / "m.so")
    older = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64"})
    (check,) = compiled.export_tvm(tmp_path / "m.so", target=older)
    assert check.error <= check.tolerance


def test_a_machine_without_tvm_or_a_compiler_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    with monkeypatch.context() as change:
        change.setenv("PATH", str(tmp_path))
        with pytest.raises(ExportError, match=r"compiled with c\+\+, which"):
            compiled.export_tvm(tmp_path / "m.so")
    for name in ("hashcompile.lower.tvm", "hashcompile.lower.tvm_library"):
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name)
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(ConfigError, match=r"pip install 'hashcompile\[tvm\]'"):
        compiled.export_tvm(tmp_path / "m.so")
    with pytest.raises(ConfigError, match=r"pip install 'hashcompile\[tvm\]'"):
        hc.compile(nn.Linear(16, 16), normal(16)(2), tvm=True)
    assert not (tmp_path / "m.so").exists()


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(32, 48), nn.Linear(48, 400)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(self.hidden(x).relu())
        return scores, scores.softmax(-1)


@pytest.mark.parametrize(("compute", "code_bits"), [("float", None), ("int8", None), ("float", 4)])
def test_wide_outputs_are_computed_in_part(compute: Compute, code_bits: int | None, tmp_path: Path) -> None:
    method = {"hidden": hc.Codebook(6), "head": hc.Wide(0.9, classes=100, code_bits=code_bits)}
    compiled = hc.compile(Classifier(), normal(32)(2), method, [normal(32)(256)], compute=compute)
    (check,) = compiled.export_tvm(tmp_path / "m.so")
    assert check.error <= check.tolerance
    code = compiled.graph_module.get_submodule("head.weight")
    assert isinstance(code, WideWeight)
    (x,) = normal(32)(50)
    scores, shares = runner(tmp_path / "m.so")((x,))
    computed = scores != -torch.inf
    assert torch.equal(shares > 0, computed) and 0 < int(computed.sum()) < computed.numel()
    if compute == "float":
        graph = compiled.graph_module
        hidden = nn.functional.linear(
            x, graph.get_submodule("hidden.weight")(), graph.get_parameter("hidden.bias")
        )
        wanted = code.candidates(hidden.detach().relu())
        assert float((wanted != computed).double().mean()) < 1e-3, (
            "but for what rounding moves over a threshold"
        )
        torch.testing.assert_close(scores[computed], compiled(x)[0].detach()[computed], rtol=1e-4, atol=1e-5)


def test_a_wide_library_that_computes_other_rows_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"head": hc.Wide(0.9, classes=100)}
    compiled = hc.compile(Classifier(), normal(32)(2), method, [normal(32)(256)], compute="float")
    honest = WideWeight.candidates
    monkeypatch.setattr(WideWeight, "candidates", lambda code, x: ~honest(code, x))
    with pytest.raises(hc.VerificationError, match="computes other outputs than its index asks for"):
        compiled.export_tvm(tmp_path / "m.so")
    assert not list(tmp_path.iterdir())


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


def test_a_library_tells_its_inputs_and_is_measured_beside_the_onnx_file(tmp_path: Path) -> None:
    model, inputs = build("mixed")
    compiled = hc.compile(model, inputs(2))
    compiled.export_onnx(tmp_path / "m.onnx")
    compiled.export_tvm(tmp_path / "m.so")
    file = read(tmp_path / "m.so")
    (declared,) = file.inputs
    (symbol, length) = declared.shape
    assert (declared.name, declared.dtype, length) == ("ids", np.dtype("i8"), 6) and isinstance(symbol, str)
    assert file.inputs == read(tmp_path / "m.onnx").inputs, "the same names for both"
    assert file.machine == platform.machine()
    settings = Settings(threads=1, runs=10, sizes=Sizes(batch=3))
    onnx, library = bench(contenders([tmp_path / "m.onnx", tmp_path / "m.so"]), settings)
    assert (onnx.runtime, library.runtime) == ("hashcompile", "tvm")
    assert onnx.inputs == library.inputs == {"ids": [3, 6]}
    assert library.file_bytes == (tmp_path / "m.so").stat().st_size
    assert library.p50_ms > 0 and library.load_ms > 0 and library.resident_bytes > 0

    with pytest.raises(ArtifactError, match=r"not one that hashcompile wrote.*export_tvm"):
        contenders([Path(hcrt.library_path())])
    torn = (tmp_path / "m.so").read_bytes().replace(b'{"inputs"', b'{"outputs')
    (tmp_path / "torn.so").write_bytes(torn)
    with pytest.raises(ArtifactError, match=r"torn\.so: damaged: what it says of its inputs"):
        contenders([tmp_path / "torn.so"])
