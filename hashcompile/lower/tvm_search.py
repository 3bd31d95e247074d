"""TVM's MetaSchedule, with candidates that are compiled and timed in a process of our own (tvm_trial.py).

TVM's own does so too, in workers that import PyTorch and take half a minute to start; ours starts in a second.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, current_thread, main_thread
from types import ModuleType
from typing import Any

import tvm
from tvm import s_tir
from tvm.ir import IRModule
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.measure_callback import AddToDatabase, PyMeasureCallback, UpdateCostModel
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult
from tvm.target import Target

from hashcompile.core.errors import ArtifactError
from hashcompile.lower.tvm_records import FAILED
from hashcompile.race import Entry, Worker

TRIAL = Path(__file__).with_name("tvm_trial.py")
PATIENCE = 60.0  # seconds for one candidate
PER_TURN = 64  # candidates that are chosen before their timings are looked at, at most
POPULATION = 128  # schedules that are bred in a turn; TVM's 512 take longer to make than 64 do to time
NARRATOR = "tvm.s_tir.meta_schedule"  # the logger of all that it tells
INTRINSICS = "tvm.s_tir.tensor_intrin"
INTERRUPTED = "interrupted"  # as the error of a candidate that was not timed


class Bench:
    """Compiles and times candidates, one after another: two at once would slow each other down."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.folder, self.target = folder, tvm.ir.save_json(target)
        self.process: subprocess.Popen[str] | None = None
        self.written = 0

    def write(self, candidate: IRModule) -> Path:
        """The file that holds the module, its function's arguments and the target."""
        path = self.folder / f"{self.written}.json"
        self.written += 1
        types = [parameter.ty for parameter in candidate["main"].params]
        arguments = [(str(each.dtype), [int(size) for size in each.shape]) for each in types]
        content = {"module": tvm.ir.save_json(candidate), "target": self.target, "arguments": arguments}
        path.write_text(json.dumps(content))
        return path

    def seconds(self, path: Path) -> list[float]:
        """Of several runs. Raises ArtifactError for a candidate that fails, whatever it does to its process."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(TRIAL)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # an interruption is ours to handle
            )
        worker = Worker(self.process, Entry("candidate", TRIAL, {}, patience=PATIENCE))
        try:
            answer = worker.ask({"candidate": str(path)})
        except ArtifactError:  # dead, or about to be
            self.close()
            raise
        finally:
            path.unlink()
        if "failed" in answer:
            raise ArtifactError(answer["failed"])
        found: list[float] = answer["seconds"]
        return found

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@contextmanager
def bench(target: Target) -> Iterator[Bench]:
    with TemporaryDirectory() as folder:
        made = Bench(Path(folder), target)
        try:
            yield made
        finally:
            made.close()


@derived_object
class Builder(PyBuilder):  # type: ignore[misc]
    """What is built is only written down: the process that times it compiles it, too."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench

    def build(self, candidates: Sequence[Any]) -> list[Any]:
        return [BuilderResult(str(self.bench.write(each.mod)), None) for each in candidates]


@derived_object
class Done(PyRunnerFuture):  # type: ignore[misc]
    def __init__(self, seconds: list[float] | None, error: str | None) -> None:
        super().__init__()
        self.seconds, self.error = seconds, error

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return RunnerResult(self.seconds, self.error)


@derived_object
class Runner(PyRunner):  # type: ignore[misc]
    def __init__(self, bench: Bench, stop: Event, advance: Callable[[], None]) -> None:
        super().__init__()
        self.bench, self.stop, self.advance = bench, stop, advance

    def run(self, candidates: Sequence[Any]) -> list[Any]:
        return [self.one(Path(str(each.artifact_path))) for each in candidates]

    def one(self, path: Path) -> Any:
        if self.stop.is_set():
            return Done(None, INTERRUPTED)
        try:
            return Done(self.bench.seconds(path), None)
        except ArtifactError as error:
            return Done(None, str(error))
        finally:
            self.advance()


@derived_object
class Keep(PyMeasureCallback):  # type: ignore[misc]
    """Puts a turn's results into the database; where it was interrupted, those that there are."""

    def __init__(self, stop: Event) -> None:
        super().__init__()
        self.stop, self.add = stop, AddToDatabase()

    def apply(
        self,
        task_scheduler: Any,
        task_id: int,
        measure_candidates: Any,
        builder_results: Any,
        runner_results: Any,
    ) -> None:
        timed = [i for i, result in enumerate(runner_results) if str(result.error_msg) != INTERRUPTED]
        parts = ([each[i] for i in timed] for each in (measure_candidates, builder_results, runner_results))
        self.add.apply(task_scheduler, task_id, *parts)
        if self.stop.is_set():
            raise RuntimeError(INTERRUPTED)


def search(
    functions: Sequence[tuple[IRModule, int]],
    target: Target,
    database: Any,
    trials: int,
    bench: Bench,
    advance: Callable[[], None],
) -> None:
    """Try schedules of `functions`, each with how often it is called; what is measured is in the database at once."""
    threads = int(target.attrs["num-cores"])
    with without_intrinsics(), silent() as logger, interruptible() as stop:
        tasks = [
            meta_schedule.TuneContext(
                function,
                target=target,
                space_generator=meta_schedule.space_generator.PostOrderApply(
                    sch_rules=meta_schedule.ScheduleRule.create("llvm"),
                    postprocs=meta_schedule.Postproc.create("llvm"),
                    mutator_probs=meta_schedule.Mutator.create("llvm"),
                ),
                search_strategy=meta_schedule.search_strategy.EvolutionarySearch(population_size=POPULATION),
                task_name=f"{place}",
                rand_state=place + 1,
                num_threads=threads,
                logger=logger,
            )
            for place, (function, _) in enumerate(functions)
        ]
        meta_schedule.tune.tune_tasks(
            tasks=tasks,
            task_weights=[float(calls) for _, calls in functions],
            work_dir=str(bench.folder),
            max_trials_global=trials,
            # every function has its turn, and some have another
            num_trials_per_iter=max(1, min(PER_TURN, trials // (2 * len(tasks)))),
            builder=Builder(bench),
            runner=Runner(bench, stop, advance),
            database=database,
            cost_model="xgb" if find_spec("xgboost") else "random",
            measure_callbacks=[Keep(stop), UpdateCostModel()],
        )


def measure(
    function: IRModule, schedule: s_tir.Schedule, database: Any, target: Target, bench: Bench
) -> None:
    """A schedule of ours, as a trial among the others. Its record has no steps."""
    try:
        seconds = bench.seconds(bench.write(schedule.mod))
    except ArtifactError:
        seconds = [FAILED]
    arguments = meta_schedule.arg_info.ArgInfo.from_entry_func(function)
    workload = database.commit_workload(function)
    record = meta_schedule.database.TuningRecord
    database.commit_tuning_record(
        record(s_tir.Schedule(function).trace, workload, seconds, target, arguments)
    )


@contextmanager
def interruptible() -> Iterator[Event]:
    """The event is set where the user interrupts: TVM keeps results when a turn is over, so the turn has to end first.

    An exception of the user's would not come through TVM as what it was.
    """
    stop = Event()
    if current_thread() is not main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    except RuntimeError:
        if not stop.is_set():
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.is_set():
        raise KeyboardInterrupt


@contextmanager
def without_intrinsics() -> Iterator[None]:
    """TVM reads those of GPUs and of products of bytes first, for half a minute where PyTorch is loaded. The rules that
    we take use none.
    """
    if INTRINSICS in sys.modules:
        yield
        return
    sys.modules[INTRINSICS] = ModuleType(INTRINSICS)
    try:
        yield
    finally:
        del sys.modules[INTRINSICS]


@contextmanager
def silent() -> Iterator[logging.Logger]:
    logger = logging.getLogger(NARRATOR)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield logger
    finally:
        logger.setLevel(before)
