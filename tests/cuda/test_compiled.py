"""What nvcc makes of the kernels, where there is one: no register spills, and the instructions that are wanted."""

import re
import shutil
import subprocess

import pytest

from tests.cuda.emulated import HERE, INCLUDES

NVCC, NVDISASM = shutil.which("nvcc"), shutil.which("nvdisasm")
KERNELS = 6  # of some_kernels.cu


@pytest.fixture(scope="module", params=("sm_80", "sm_90"))
def compiled(request, tmp_path_factory):
    """(what ptxas says, the file with the code)."""
    if not NVCC:
        pytest.skip("no nvcc here: the CUDA kernels were not compiled")
    file = tmp_path_factory.mktemp("cuda") / f"{request.param}.cubin"
    flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-arch={request.param}", "-Xptxas", "-v"]
    command = [NVCC, *flags, *INCLUDES, "-cubin", str(HERE / "some_kernels.cu"), "-o", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr, file


def test_no_spills(compiled):
    frames = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", compiled[0]
    )
    assert len(frames) == KERNELS
    assert set(frames) == {("0", "0", "0")}


def test_two_blocks_fit_a_multiprocessor(compiled):
    """Of 128 threads: 65,536 registers are 255 for each of them, and the kernels stay below."""
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", compiled[0])]
    assert len(registers) == KERNELS
    assert max(registers) < 255


def test_instructions(compiled):
    """Tensor cores for each type, 16 bytes a load, copies past the registers; nothing in local memory."""
    if not NVDISASM:
        pytest.skip("no nvdisasm here: the instructions were not looked at")
    code = subprocess.run(
        [NVDISASM, "-c", str(compiled[1])], capture_output=True, text=True, check=True
    ).stdout
    for pattern in (
        r"HMMA\.16816\.F32 ",
        r"HMMA\.16816\.F32\.BF16",
        r"HMMA\.1688\.F32\.TF32",
        r"LDG\.E\.\S*128",
        r"LDGSTS\.\S*128",
        r"LDS\.128",
    ):
        assert re.search(pattern, code), pattern
    assert not re.search(r"\b(LDL|STL)\b", code)
