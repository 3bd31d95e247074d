"""The shape of the house: imports go only down, a device needs no torch, and the wheel loses no file."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (  # from the cellar up; a module may import its own floor and those below it
    ("hashcompile_runtime",),
    ("hashcompile.core",),
    ("hashcompile.race", "hashcompile.bench_worker", "hashcompile.bench_onnx", "hashcompile.bench_tvm"),
    ("hashcompile.measure", "hashcompile.model_file"),
    ("hashcompile.bench_device", "hashcompile.ssh"),
    ("hashcompile.bench", "hashcompile.bench_inputs"),
    ("hashcompile.recommend",),
    (
        "hashcompile.capture",
        "hashcompile.calibrate",
        "hashcompile.compensate",
        "hashcompile.correct",
        "hashcompile.reconstruct",
        "hashcompile.output_error",
        "hashcompile.layer_task",
        "hashcompile.several_uses",
        "hashcompile.shrinkage",
        "hashcompile.ridge",
        "hashcompile.refit_norms",
    ),
    ("hashcompile.passes.channels",),
    ("hashcompile.passes",),
    ("hashcompile.plan", "hashcompile.lower", "hashcompile.report", "hashcompile.training"),
    ("hashcompile.rounded", "hashcompile.ranges", "hashcompile.partial", "hashcompile.verify"),
    ("hashcompile.container", "hashcompile.artifact"),
    ("hashcompile.pipeline", "hashcompile.encode", "hashcompile.reshape"),
    ("hashcompile.check_tvm",),
    ("hashcompile.compiler",),
    ("hashcompile.recipes",),
    ("hashcompile",),
    ("hashcompile.inspector",),
    ("hashcompile.demo",),
    ("hashcompile.cli",),
)
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    """Every module of both distributions, by the name under which it is imported."""
    homes = {
        "hashcompile": ROOT / "hashcompile",
        "hashcompile.passes": ROOT / "passes",
        "hashcompile_runtime": ROOT / "runtime" / "hashcompile_runtime",
    }
    found = {}
    for package, home in homes.items():
        for path in home.rglob("*.py"):
            parts = path.relative_to(home).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, imported module of ours), wherever in the file the import stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = [full if full in MODULES else base for full in inner]
        else:
            continue
        ours = (found for found in names if found.partition(".")[0] in ("hashcompile", "hashcompile_runtime"))
        yield from ((node.lineno, found) for found in ours)


def level(name: str) -> int:
    """The floor of the longest listed prefix; `hashcompile` itself stands for no other module."""
    while name not in LEVEL:
        name = name.rpartition(".")[0]
        assert name != "hashcompile", "a new module: give it a floor in FLOORS"
    return LEVEL[name]


def room(name: str) -> str | None:
    """`hashcompile.passes.codebook.math` lives in the room `codebook`; a floor of its own is no room."""
    parts = name.split(".")
    if ".".join(parts[:3]) in LEVEL:
        return None
    inside = parts[:2] == ["hashcompile", "passes"] and len(parts) > 2
    return parts[2] if inside and (ROOT / "passes" / parts[2]).is_dir() else None


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_only_down(name: str) -> None:
    for line, imported in imports(name, MODULES[name]):
        where = f"{MODULES[name].relative_to(ROOT)}:{line} imports {imported}"
        assert level(imported) <= level(name), f"{where}, which is on a higher floor"
        rooms = {room(name), room(imported)} - {None}
        assert len(rooms) < 2, f"{where}: rooms never import one another"


def test_runtime_needs_no_torch() -> None:
    """A device has numpy, ONNX Runtime and our library: `None` in sys.modules makes an import fail."""
    program = """
import sys
absent = ("torch", "onnx", "onnxscript", "hashcompile", "rich", "typer", "safetensors")
sys.modules.update(dict.fromkeys(absent))
import hashcompile_runtime
assert hashcompile_runtime.library_path()
assert hashcompile_runtime.kernels()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wheel_loses_no_file(tmp_path: Path) -> None:
    """`passes/` is mapped into the package by the build; a new room must reach the user's machine too."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("hashcompile-*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
        for name, path in MODULES.items()
        if not name.startswith("hashcompile_runtime")
    }
    assert shipped == expected | {"hashcompile/py.typed"}
