"""Libraries for CUDA: what is in them, and on the emulated GPU, what they compute."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import hashcompile as hc
import hashcompile_runtime as hcrt
from hashcompile.bench import Settings, bench, contenders
from hashcompile.core.elf import read_section
from hashcompile.core.errors import ArtifactError, ConfigError, ExportError
from hashcompile.lower.destination import TVM_CUDA
from hashcompile.lower.tvm_nodes import MAGIC
from hashcompile.model_file import ModelFile, read
from hashcompile.verify import TVM_HERE
from tests.cuda.emulated import HERE, RUNTIME
from tests.cuda.packed import Packed
from tests.models import build, normal

tvm = pytest.importorskip("tvm", reason="TVM is not installed: pip install 'hashcompile[tvm]'")

from tvm.backend.cuda import export_cuda_host  # noqa: E402 - needs TVM

from hashcompile.lower import compiler, cross_archive, tvm_cuda  # noqa: E402
from hashcompile.lower.tvm import lower  # noqa: E402
from hashcompile.lower.tvm_library import platform  # noqa: E402
from tests.cuda import emulated_tvm  # noqa: E402
from tests.cuda.tvm_cases import CASES  # noqa: E402

ROOT = HERE.parents[1]


@pytest.fixture
def here(emulated_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries are made for the emulated GPU, which this process cannot run."""
    monkeypatch.setattr(tvm_cuda, "platform", emulated_tvm.platform(emulated_folder))


def test_libraries_run_on_the_emulated_gpu(emulated_folder: Path, tmp_path: Path) -> None:
    """All that is on the way: TVM's loops, our kernels, and their memory."""
    command = [sys.executable, "-m", "tests.cuda.emulated_tvm", str(emulated_folder), str(tmp_path), *CASES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines() == [f"checked {name}" for name in CASES]


@pytest.mark.usefixtures("here")
def test_without_a_gpu_the_same_nodes_are_verified_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = build("cnn")
    compiled = hc.compile(model, inputs(2), compute="int8")
    (check,) = compiled.export_tvm(tmp_path / "m.so", target="cuda")
    assert check.runtime == TVM_HERE and check.error <= check.tolerance == 1e-4, "in float"
    file = read(tmp_path / "m.so")
    assert file.cuda and not read_cpu(compiled, tmp_path).cuda
    with pytest.raises(ArtifactError, match=r"m\.so.*made for CUDA, and TVM finds no GPU here"):
        bench(contenders([tmp_path / "m.so"]), Settings(threads=1, runs=1))

    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    made = ExportedProgramImporter.create_convert_map

    def wrong(importer: ExportedProgramImporter) -> dict[str, object]:
        rows = made(importer)
        return {**rows, "relu.default": lambda node: importer.env[node.args[0]]}

    monkeypatch.setattr(ExportedProgramImporter, "create_convert_map", wrong)
    with pytest.raises(hc.VerificationError, match=r"other\.so .*the first node that differs is relu"):
        compiled.export_tvm(tmp_path / "other.so", target="cuda")
    assert not (tmp_path / "other.so").exists()


def read_cpu(compiled: hc.CompiledModel, folder: Path) -> ModelFile:
    compiled.export_tvm(folder / "cpu.so")
    return read(folder / "cpu.so")


class Mixed(nn.Module):
    """Codes of two widths, what has no kernel on a GPU, groups that are small, and what nobody compressed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.volume = nn.Conv2d(3, 32, 3), nn.Conv3d(1, 4, 3, padding=1)
        self.each = nn.Conv2d(32, 32, 3, groups=32)
        self.norm, self.first, self.last = nn.LayerNorm(32), nn.Linear(32, 48), nn.Linear(48, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.volume(self.each(self.image(x).relu()).unsqueeze(1)).mean((1, 3, 4))
        return self.last(nn.functional.gelu(self.first(self.norm(x))))


def test_only_what_kernels_compute_becomes_a_node() -> None:
    method = {
        "image": hc.Codebook(2),
        "volume": hc.Codebook(4),
        "each": hc.Codebook(8),
        "first": hc.Codebook(4),
    }
    compiled = hc.compile(Mixed().eval(), normal(3, 6, 6)(2), method, progress=False)
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "int8", {}, to=TVM_CUDA)
    assert [node.operator for node in lowered.nodes] == ["CodebookConv", "CodebookLinear"]
    for node in lowered.nodes:
        assert node.attributes["compute"] == 0 and "activation" not in node.attributes
    assert [tvm_cuda.kind_of(node) for node in lowered.nodes] == ["2_bits", "4_bits"]


def test_images_keep_their_channels_last_between_convolutions() -> None:
    compiled = hc.compile(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval(), normal(3, 8, 8)(2)
    )
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {}, to=TVM_CUDA)
    assert [node.attributes.get("channels_last", 0) for node in lowered.nodes] == [2, 1]


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.codes, self.dense, self.norm = nn.Linear(64, 64), nn.Linear(64, 64), nn.LayerNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.dense(self.codes(x))).softmax(-1)


def test_products_norms_and_softmax_get_rules_for_gpus(tmp_path: Path) -> None:
    """One that stumbles is skipped, and the last one, which shares no memory among threads, would do for all."""
    compiled = hc.compile(Dense().eval(), normal(16, 64)(2), {"codes": hc.Codebook(4)}, progress=False)
    lowered = lower(compiled.graph_module, compiled.signature, compiled.samples[0], "float", {}, to=TVM_CUDA)
    where = emulated_tvm.platform(tmp_path)("cuda", False)
    with where.target:
        made = tvm.compile(lowered.module, where.target, relax_pipeline=where.pipeline(None))
    (functions,) = (each for each in made.mod.imports if "cu" in each.get_write_formats())
    kernels = export_cuda_host(functions).split("__global__")[1:]
    assert sum("__shared__" in kernel for kernel in kernels) >= 3


@pytest.fixture
def nvcc() -> str:
    if (path := shutil.which("nvcc")) is None:
        pytest.skip("no nvcc here: no library for CUDA was compiled")
    try:
        cross_archive.cmake()
    except ExportError as error:
        pytest.skip(str(error))
    return path


ALLOWED = ("libstdc++", "libgcc_s", "libc", "libm", "libdl", "libpthread", "librt", "ld-linux")


@pytest.mark.timeout(1800)  # compiles kernels where that was not done before
@pytest.mark.parametrize("name", ["cnn", "embedding"])
def test_a_library_is_compiled_and_linked(nvcc: str, name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    compiled = hc.compile(model, inputs(2), hc.Codebook(4))
    (check,) = compiled.export_tvm(tmp_path / "m.so", target="cuda")
    assert check.error <= check.tolerance
    library = (tmp_path / "m.so").read_bytes()
    assert MAGIC in library and read(tmp_path / "m.so").cuda
    codes = list(fatbins(read_section(tmp_path / "m.so", ".nv_fatbin").content or b""))
    assert len(codes) == 2, "kernels of 4 bits, and TVM's"
    for found in codes:
        assert found == {("code", 80), ("code", 90), ("PTX", 90)}

    lines = told("nm", "-D", "--undefined-only", tmp_path / "m.so")
    symbols = [(kind, symbol) for kind, symbol in map(str.split, lines) if "@" not in symbol]
    assert {symbol for kind, symbol in symbols if kind == "U" and not symbol.startswith("TVMFFI")} == set()
    needed = [
        line.split("[")[1].rstrip("]")
        for line in told("readelf", "-d", tmp_path / "m.so")
        if "NEEDED" in line
    ]
    assert all(name.startswith(ALLOWED) for name in needed) and "libcudart" not in str(needed)
    if not tvm.cuda().exist:
        assert tvm.relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "m.so")), tvm.cpu())["main"]
        assert not Packed(tmp_path / "m.so")(0, *inputs(2), torch.zeros(1)), "an error, and no crash"


def told(*command: object) -> list[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def fatbins(section: bytes) -> list[set[tuple[str, int]]]:
    """What every fat binary of a section holds, each kind of content with its architecture."""
    found, at = [], 0
    while (at := section.find(struct.pack("<I", 0xBA55ED50), at)) >= 0:
        header, size = struct.unpack_from("<HQ", section, at + 6)
        entry, end, kinds = at + header, at + header + size, set()
        while entry < end:
            kind, _, length, nbytes = struct.unpack_from("<HHIQ", section, entry)
            (architecture,) = struct.unpack_from("<I", section, entry + 28)
            kinds.add(({1: "PTX", 2: "code"}.get(kind, str(kind)), architecture))
            entry += length + nbytes
        found.append(kinds)
        at = end
    return found


def without_nvcc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`folder` has no programs, and nobody says where a toolkit lies."""
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(compiler, "USUAL_HOME", str(folder / "cuda"))
    for name in ("CUDACXX", *compiler.HOMES):
        monkeypatch.delenv(name, raising=False)


def test_nvcc_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_nvcc(tmp_path, monkeypatch)
    for home in ("cuda", "named"):
        with pytest.raises(ExportError, match=rf"no nvcc on the path, nor in (\S+ or )?{tmp_path}/cuda"):
            compiler.look_for("cuda")
        (program := tmp_path / home / "bin" / "nvcc").parent.mkdir(parents=True)
        program.touch(mode=0o755)
        if home == "named":
            monkeypatch.setenv("CUDA_HOME", str(tmp_path / home))
        assert compiler.nvcc_path() == str(program)
        program.unlink()
    monkeypatch.setenv("CUDACXX", str(program))
    with pytest.raises(ExportError, match=rf"CUDACXX={program} is no program"):
        compiler.look_for("cuda")
    program.touch(mode=0o755)
    assert compiler.nvcc_path() == str(program)


def test_what_does_not_start_is_missing(tmp_path: Path) -> None:
    for command in (tmp_path / "none", tmp_path):  # of the second, the system says that it may not be run
        with pytest.raises(ExportError, match=rf"compiled with {command}, which"):
            compiler.call([str(command)])


def test_what_is_missing_and_what_does_not_go_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = hc.compile(nn.Linear(16, 16), normal(16)(2))
    old = tvm.target.Target({"kind": "cuda", "arch": "sm_75"})
    with pytest.raises(ConfigError, match=r"need an arch from sm_80 on"):
        compiled.export_tvm(tmp_path / "m.so", target=old)
    with pytest.raises(ConfigError, match=r"tune: its trials run on a CPU"):
        compiled.export_tvm(tmp_path / "m.so", target="cuda", tune=hc.Tuning(tmp_path))
    without_nvcc(tmp_path, monkeypatch)
    with pytest.raises(ExportError, match=r"no nvcc on the path, nor in .*; NVIDIA's CUDA toolkit has it"):
        compiled.export_tvm(tmp_path / "m.so", target="cuda")
    assert not (tmp_path / "m.so").exists()


def test_architectures(nvcc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_archive, "archive", lambda recipe, show: Path(recipe.target))
    for name, wanted in (("sm_80", 80), ("sm_90a", 90), ("sm_120", 120)):
        made = platform(tvm.target.Target({"kind": "cuda", "arch": name}))
        assert tvm_cuda.architecture_of(made.target) == wanted
        assert made.target.host.kind.name == "cuda_host"
    assert platform("cuda").target.attrs["arch"] == "sm_80"


class Ranked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(16, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(x).cumsum(-1).topk(3).values


def test_a_model_is_checked_for_cuda_before_it_is_compressed() -> None:
    """What our kernels compute on a CPU, TVM must import here; what needs memory between its own, it cannot compile."""
    model, inputs = build("attention")
    hc.check_tvm(model, inputs(2), target="cuda")
    hc.compile(model, inputs(2), tvm="cuda", progress=False)
    hc.check_tvm(Ranked(), normal(16)(2))
    here = r"\(node \w+\) from \S*test_tvm_library\.py:\d+.*"
    with pytest.raises(
        ExportError, match=rf"for CUDA aten\.cumsum\.default {here}aten\.topk\.default {here}"
    ):
        hc.check_tvm(Ranked(), normal(16)(2), target="cuda")
    with pytest.raises(ConfigError, match="target='gpu': wanted cpu, arm64, cuda"):
        hc.check_tvm(Ranked(), normal(16)(2), target="gpu")


def test_the_runtime_has_the_sources_that_are_compiled() -> None:
    held = {path.relative_to(hcrt.source_path()) for path in hcrt.source_path().rglob("*.*")}
    for folder in ("cuda", "tvm", "nodes", "include", "kernels", "ops"):
        ours = {path.relative_to(RUNTIME) for path in (RUNTIME / folder).rglob("*.*") if path.is_file()}
        assert ours and not ours - held
