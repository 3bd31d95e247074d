"""The command line: compile, inspect, bench, recommend, demo. What each does is told by `--help`, with an example."""

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

import hashcompile as hc
from hashcompile import bench as benching
from hashcompile import inspector
from hashcompile.bench_inputs import Sizes
from hashcompile.core.console import format_bytes, show
from hashcompile.core.files import check_library_name, staged
from hashcompile.core.method import Compute
from hashcompile.lower.compiler import look_for
from hashcompile.lower.destination import tvm_destination
from hashcompile.recommend import Criterion
from hashcompile.ssh import Host

OPTIONS = {".onnx": "-o", ".hc": "--save", ".so": "--tvm"}
KINDS = {"-o": "an ONNX file", "--save": "an artifact", "--tvm": "a TVM library"}

# What several commands take.
AsJson = Annotated[bool, typer.Option("--json", help="For a program, not a person.")]
On = Annotated[str | None, typer.Option(metavar="USER@HOST", help="Measure there, over ssh, and not here.")]
Python = Annotated[str, typer.Option(help="With --on: the Python there that has the runtimes.")]
Runs = Annotated[int, typer.Option(help="Timed runs of each file, in turns of ten.")]
Threads = Annotated[int, typer.Option(help="Threads of each runtime.")]


class Commands(TyperGroup):
    """Our own errors are advice to the user: one message, exit code 1, no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except hc.HashcompileError as error:
            if ctx.params["debug"]:
                raise
            Console(stderr=True, highlight=False).print(
                f"[bold red]{type(error).__name__}:[/] ", end="", soft_wrap=True
            )
            Console(stderr=True, highlight=False, markup=False).print(str(error), soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"hashcompile {hc.__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compile a trained PyTorch model to one small ONNX file: portable everywhere, fast with our kernels.

    Start with `hashcompile demo`, then `hashcompile compile --help`.
    """


@app.command()
def compile(
    factory: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY",
            help="FACTORY() returns (model, example_inputs), (model, example_inputs, calibration), or an "
            "object with these attributes. The current directory can be imported from.",
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the ONNX file here.")] = None,
    tvm: Annotated[
        Path | None,
        typer.Option(
            help="Write a TVM library here; what TVM cannot import is told before anything is compressed."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="With --tvm: cpu, this machine's; arm64, 64-bit ARM Linux; cuda, NVIDIA's GPUs, with nvcc; else cpu."
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the .hc artifact here, for hc.load().")] = None,
    tune: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="With --tvm: try schedules of TVM's loops; all trials stay in this folder."
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="With --tune: how many, of all loops together; else 1000.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Width of an index, 1 to 8: a table has 2^bits values.")] = 4,
    group_size: Annotated[
        int | None, typer.Option(help="One table for so many output channels, not one a layer.")
    ] = None,
    uniform: Annotated[
        bool, typer.Option(help="With --bits 8: whole numbers from -127 to 127, which need no table.")
    ] = False,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Leave layers of this name alone; repeatable.")
    ] = None,
    compute: Annotated[
        Compute, typer.Option(help="Arithmetic of our kernels: int8 is fast, float is exact, bf16 between.")
    ] = "int8",
    calibration: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FN", help="FN() returns batches of inputs: better codes at equal size."),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Run the file and compare it with the model.")] = True,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Compress a model and write it to a file.

    Example, with a `zoo.py` here that has a function `resnet()`:

        hashcompile compile zoo:resnet --bits 4 --skip fc -o resnet.onnx

    The report says, for each layer, what was done and what it cost, and why a layer was left alone.
    """
    if output is None and save is None and tvm is None:
        raise hc.ConfigError(
            "nothing to write: give -o model.onnx, --tvm model.so, --save model.hc, or more of them"
        )
    if uniform and (bits != 8 or group_size is not None):
        raise hc.ConfigError("--uniform goes with --bits 8, and with no --group-size")
    if target is not None and tvm is None:
        raise hc.ConfigError("--target is about the TVM library: give --tvm model.so, too")
    target = target or "cpu"
    tvm_destination(target)
    if tvm is not None:
        look_for(target)
    tuning = tuning_of(tune, trials, tvm)
    check_outputs(output, save, tvm)
    if "*" in (skip or ()):
        raise hc.ConfigError("--skip '*': every layer is skipped, and nothing is left to compress")
    model, example_inputs, batches = unpack(call(factory))
    if calibration:
        batches = call(calibration)
    config: hc.Codebook | hc.Int8 = hc.Int8()
    if not uniform:
        config = hc.Codebook(bits, "per_group" if group_size is not None else "per_tensor", group_size)
    compiled = hc.compile(
        model,
        example_inputs,
        method={"*": config, **dict.fromkeys(skip or ())},
        calibration=batches,
        compute=compute,
        seed=seed,
        verify=verify,
        tvm=target if tvm is not None else False,
    )
    reasons = [decision.reason or "" for decision in compiled.plan]
    if skip and reasons and all(reason.startswith("excluded by") for reason in reasons):
        skipped = " ".join(f"--skip {glob!r}" for glob in skip)
        raise hc.ConfigError(f"{skipped}: every layer is skipped, and nothing is left to compress")
    if save is not None:
        compiled.save(save)  # first: an export that lacks a tool loses nothing then
    checks = [*compiled.export_onnx(output)] if output is not None else []
    if tvm is not None:
        checks += compiled.export_tvm(tvm, target, tune=tuning)
    show(compiled.report())
    for check in checks:
        show(f"verified in {check}")
    for path in filter(None, (output, tvm, save)):
        show(f"wrote {path}, {format_bytes(path.stat().st_size)}")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="An .onnx file, an .hc artifact or a TVM library.")],
    as_json: AsJson = False,
) -> None:
    """Show the compressed layers of a file: operator, bits, shape, bytes, arithmetic; of a TVM library, its inputs.

    Nothing is run.

    Example:

        hashcompile inspect resnet.onnx
    """
    contents = inspector.inspect(file)
    if as_json:
        print(json.dumps(asdict(contents), indent=2))
    else:
        show(inspector.as_table(contents))


@app.command()
def bench(
    files: Annotated[list[Path], typer.Argument(help="The first is what the others are compared with.")],
    threads: Threads = 2,
    runs: Runs = 200,
    batch: Annotated[
        int | None,
        typer.Option(help="Size of a symbolic first dimension; else what another file fixes, else 1."),
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="Size of a symbolic dimension; repeatable.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="INPUT=A,B,..", help="Whole shape of an input; repeatable.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="An .npz of real inputs by name; else noise, and 1 for integers.")
    ] = None,
    stock: Annotated[bool, typer.Option(help="Run our ONNX files without our library too.")] = False,
    on: On = None,
    python: Python = "python3",
    as_json: AsJson = False,
) -> None:
    """Measure ONNX files and TVM libraries side by side: latency, cold load time, resident memory, bytes on disk.

    Our ONNX files run with our library, any other in ONNX Runtime as it comes, our TVM libraries in TVM. Example:

        hashcompile bench resnet.onnx resnet.so resnet_fp32.onnx --batch 8 --threads 2

    With `--on` the files are copied to a temporary folder of that machine, measured there, and removed:

        hashcompile bench resnet.onnx resnet.so --on pi@kitchen --python /opt/env/bin/python

    It needs Python 3.11 and numpy, with hashcompile-runtime for our ONNX files, onnxruntime for others, and apache-tvm
    for libraries. ssh takes keys, ports and jumps from its own configuration.

    Every file has a process of its own; latencies are taken in turns, so that all see the same machine.
    All run inputs of the same size: what one file fixes, the others take.

    The column `p50 / first` is a file's p50 over the first file's: below 1 is faster than the first.
    """
    settings = benching.Settings(
        threads=threads,
        runs=runs,
        sizes=Sizes(
            batch=batch,
            dims={name: int(sizes) for name, sizes in pairs(dim, "--dim")},
            shapes={
                name: [int(size) for size in sizes.split(",")] for name, sizes in pairs(shape, "--shape")
            },
            inputs=inputs,
        ),
    )
    host = Host(on, python) if on is not None else None
    results = benching.bench(benching.contenders(files, stock), settings, on=host)
    if as_json:
        print(json.dumps([asdict(row) for row in results], indent=2))
    else:
        show(benching.as_table(results))


@app.command()
def recommend(
    file: Annotated[Path, typer.Argument(help="An .hc artifact: compile --save writes one.")],
    target: Annotated[str, typer.Option(help="What the TVM library is made for, as in export_tvm.")] = "cpu",
    prefer: Annotated[
        Criterion, typer.Option(help="What decides; the other figures are told, for or against.")
    ] = "latency",
    batch: Annotated[
        int | None, typer.Option(help="Samples a run, of the example inputs; else as few as the model takes.")
    ] = None,
    threads: Threads = 2,
    runs: Runs = 200,
    on: On = None,
    python: Python = "python3",
    as_json: AsJson = False,
) -> None:
    """Say which to ship, the ONNX file or the TVM library: make both, measure both, tell why.

    Example:

        hashcompile compile zoo:resnet --save resnet.hc
        hashcompile recommend resnet.hc --threads 2

    Both files are verified, then measured in turns on the inputs that the model was compiled with; they are not kept.
    Differences below 5 % count as none: a shared machine shows as much between two runs of one file. Where TVM is not
    installed, or cannot take the model, the ONNX file is measured alone, and the answer says so.

    With `--on` it is measured where it will run; `hashcompile bench --help` tells what must be installed there.
    """
    advice = hc.load(file).recommend(
        target=target, batch=batch, prefer=prefer, threads=threads, runs=runs, on=on, python=python
    )
    if as_json:
        print(json.dumps(asdict(advice), indent=2))
    else:
        show(advice)


@app.command()
def demo(
    directory: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the files here to look at.")
    ] = None,
) -> None:
    """Train a small CNN on scikit-learn's digits, compile it to 4 bits, print what changed. Takes a minute.

    Example:

        hashcompile demo
    """
    from hashcompile.demo import run  # scikit-learn is an extra; the other commands do without it

    run(directory)


def tuning_of(folder: Path | None, trials: int | None, tvm: Path | None) -> hc.Tuning | None:
    if folder is None and trials is not None:
        raise hc.ConfigError("--trials goes with --tune FOLDER")
    if folder is not None and tvm is None:
        raise hc.ConfigError("--tune is about the TVM library: give --tvm model.so, too")
    if folder is None:
        return None
    return hc.Tuning(folder) if trials is None else hc.Tuning(folder, trials)


def check_outputs(output: Path | None, save: Path | None, tvm: Path | None) -> None:
    """Refuse what could not be written, before minutes of work."""
    given = {"-o": output, "--save": save, "--tvm": tvm}
    paths = {option: path for option, path in given.items() if path is not None}
    for (option, path), (other, same) in combinations(paths.items(), 2):
        if path.resolve() == same.resolve():
            raise hc.ConfigError(f"{option} and {other} are both {path}: one file cannot be of two kinds")
    for option, path in paths.items():
        wanted = OPTIONS.get(path.suffix, option)
        if wanted != option:
            raise hc.ConfigError(
                f"{option} {path}: that is the name of {KINDS[wanted]}; write it with {wanted} {path}"
            )
        if option == "--tvm":
            check_library_name(path)
        with staged(path):  # nothing is staged: it only finds out whether it could be
            pass


def call(spec: str) -> Any:
    """What `package.module:function` returns. What goes wrong in it is one line, with the place."""
    return guarded(spec, resolve(spec))


def guarded(spec: str, function: Callable[[], Any]) -> Any:
    """Run the user's code: an error of theirs is told in one line, and `--debug` has the traceback."""
    try:
        return function()
    except hc.HashcompileError:
        raise
    except Exception as error:
        # the last frame outside installed packages is the user's own line
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__)[1:] if is_users(frame.filename)
        ]
        place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        raise hc.ConfigError(
            f"{spec} failed: {type(error).__name__}: {error}{place}; hashcompile --debug shows the traceback"
        ) from error


def is_users(filename: str) -> bool:
    """Is the file neither Python's own nor an installed package's?"""
    beside = Path(typer.__file__).parents[1], Path(traceback.__file__).parent
    return not (filename.startswith("<") or any(Path(filename).is_relative_to(folder) for folder in beside))


def resolve(spec: str) -> Callable[[], Any]:
    """`package.module:function` -> the function, looked for in the current directory too."""
    module_name, _, attribute = spec.partition(":")
    if not (module_name and attribute):
        raise hc.ConfigError(f"{spec!r}: wanted MODULE:FUNCTION, such as zoo:resnet")
    if module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts)
        raise hc.ConfigError(f"{spec!r}: wanted a module, not a file: write {dotted}:{attribute}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    module = guarded(module_name, lambda: load_module(spec, module_name))
    function = getattr(module, attribute, None)
    if not callable(function):
        raise hc.ConfigError(f"{spec!r}: {module_name} has no function {attribute!r}")
    found: Callable[[], Any] = function
    return found


def load_module(spec: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise  # the user's module was found, and what it imports is missing
        raise hc.ConfigError(f"{spec!r}: no module {error.name!r} here, nor an installed one") from error


def unpack(made: Any) -> tuple[Any, Any, Any]:
    """What a factory may return -> (model, example_inputs, calibration or None)."""
    if isinstance(made, tuple) and len(made) in (2, 3):
        return (*made, None)[:3]
    if hasattr(made, "model") and hasattr(made, "example_inputs"):
        return made.model, made.example_inputs, getattr(made, "calibration", None)
    raise hc.ConfigError(
        f"the factory returned a {type(made).__name__}, wanted (model, example_inputs), "
        "(model, example_inputs, calibration) or an object with these attributes"
    )


def pairs(given: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    """["batch=8"] -> [("batch", "8")]."""
    found = [text.rpartition("=")[::2] for text in given or ()]
    for text, (name, sizes) in zip(given or (), found, strict=True):
        if not name or not all(size.isdecimal() for size in sizes.split(",")):
            raise hc.ConfigError(f"{option} {text}: wanted NAME=NUMBER")
    return found
