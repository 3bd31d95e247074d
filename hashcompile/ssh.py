"""The same measurement on another machine, through one call of ssh.

There, Python unpacks what comes by its standard input into a temporary folder, measures, answers on its standard
output, and removes the folder: also where the connection breaks, which makes its next answer fail. The machine needs
Python, numpy, and what runs the files; nothing of hashcompile's compiler.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from hashcompile.core.errors import ArtifactError, ConfigError
from hashcompile.measure import Measured
from hashcompile.race import Entry

PACKAGE = Path(__file__).parent
MODULES = ("core/errors.py", "race.py", "measure.py", "bench_worker.py", "bench_device.py")
OLDEST = (3, 11)
UNREACHABLE, ABSENT = 255, 127  # exit codes: of ssh itself, and of a shell that finds no such program

FAR_END = f"""
import os, signal, sys, tarfile, tempfile
if sys.version_info < {OLDEST}:
    sys.exit(sys.executable + " is Python " + sys.version.split()[0] + ", wanted {OLDEST[0]}.{OLDEST[1]} or later")
for name in ("SIGHUP", "SIGTERM"):
    signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
with tempfile.TemporaryDirectory(prefix="hashcompile-") as folder:
    safe = {{"filter": "data"}} if hasattr(tarfile, "data_filter") else {{}}
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        archive.extractall(folder, **safe)
    os.chdir(folder)
    sys.path.insert(0, folder)
    from hashcompile.bench_device import main
    main()
"""


@dataclass(frozen=True)
class Host:
    """Where to measure: as ssh names it, and the Python there that has the runtimes."""

    name: str
    python: str = "python3"

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("-") or any(letter.isspace() for letter in self.name):
            raise ConfigError(f"{self.name!r} is no host: wanted one that ssh knows, such as user@device")


def measure_on(
    host: Host, entries: Sequence[Entry], runs: int, advance: Callable[[], None]
) -> list[Measured]:
    """What `measure` tells of that machine. Raises ArtifactError; it says what to install there."""
    command = ["ssh", "-o", "ServerAliveInterval=15", host.name]
    command.append(f"{shlex.quote(host.python)} -c {shlex.quote(FAR_END)}")
    with TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        except FileNotFoundError as error:
            raise ConfigError("there is no ssh on this machine: install OpenSSH's client") from error
        with process:
            try:
                assert process.stdin is not None and process.stdout is not None
                send(process.stdin, entries, runs)
                answer = listen(process.stdout, advance)
            except BaseException:
                process.terminate()
                raise
        if answer is None:
            said.seek(0)
            raise ArtifactError(refusal(host, process.returncode, said.read()))
    if "error" in answer:
        raise ArtifactError(f"on {host.name}: {answer['error']}")
    return [Measured(**each) for each in answer["measured"]]


def send(to: IO[bytes], entries: Sequence[Entry], runs: int) -> None:
    """The modules, the models, their inputs and the request, as one archive."""
    try:
        with to, tarfile.open(fileobj=to, mode="w|") as archive:
            for name, content in packed(entries, runs):
                member = tarfile.TarInfo(name)
                if isinstance(content, Path):
                    member.size = content.stat().st_size
                    with content.open("rb") as file:
                        archive.addfile(member, file)
                else:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    except BrokenPipeError:
        pass  # whoever closed it says why, or its exit code does


def packed(entries: Sequence[Entry], runs: int) -> Iterator[tuple[str, Path | bytes]]:
    """(name there, file here or content). Files of one model stay side by side, for they name one another."""
    for name in ("hashcompile/__init__.py", "hashcompile/core/__init__.py"):
        yield name, b""  # ours would import PyTorch
    for name in MODULES:
        yield f"hashcompile/{name}", PACKAGE / name
    moved = []
    for i, entry in enumerate(entries):
        there: dict[str, Path] = {f"hashcompile/{entry.engine.name}": entry.engine}
        cases = []
        for k, case in enumerate(entry.cases):
            there[f"{i}/inputs/{k}.npz"] = Path(case["inputs"])
            cases.append({**case, "inputs": f"{i}/inputs/{k}.npz"})
        first = Path(entry.request["files"][0])
        files = {f"{i}/{Path(file).relative_to(first.parent)}": Path(file) for file in entry.request["files"]}
        request: Mapping[str, Any] = {**entry.request, "files": list(files)}
        engine = Path("hashcompile", entry.engine.name)
        moved.append({"name": entry.name, "engine": str(engine), "request": request, "cases": cases})
        yield from (there | files).items()
    yield "request.json", json.dumps({"entries": moved, "runs": runs}).encode()


def listen(answers: IO[bytes], advance: Callable[[], None]) -> dict[str, Any] | None:
    """The last answer, when the far end has tidied up; None where it went silent. A shell there may say more than we
    asked for."""
    last = None
    for line in answers:
        if line.startswith(b"{"):
            answer: dict[str, Any] = json.loads(line)
            if "advance" in answer:
                advance()
            else:
                last = answer
    return last


def refusal(host: Host, code: int, said: str) -> str:
    last = said.strip().splitlines()[-1:] or [f"exit code {code}"]
    if code == ABSENT:
        return f"{host.name} has no {host.python}: name one with --python, or install Python {OLDEST[0]}.{OLDEST[1]}"
    if code == UNREACHABLE:
        return f"ssh cannot reach {host.name}: {last[0]}"
    return f"{host.name} could not measure: {last[0]}"
