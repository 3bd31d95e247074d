"""Loops that no kernel of ours takes over, tuned: TVM's MetaSchedule tries schedules, and the fastest ones are kept.

It wants sizes that are fixed, and a library has some that are not. So each function is tuned as it is at one size; what
is kept is a list of steps (split this loop, swap those two), and they are then taken on the function as it was
(tvm_steps.py).

The schedule without tuning is tried first, as a trial among others: nothing is chosen that was slower.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

from tvm import relax, s_tir, tirx
from tvm.ir import IRModule, Op
from tvm.s_tir.dlight import ScheduleRule, analysis
from tvm.target import Target
from tvm_ffi import structural_equal

from hashcompile.core.console import progress
from hashcompile.core.errors import ConfigError
from hashcompile.core.signature import Batch
from hashcompile.lower.tuning import Tuning
from hashcompile.lower.tvm_records import Records
from hashcompile.lower.tvm_schedules import Loops, prepared
from hashcompile.lower.tvm_search import bench, measure, search
from hashcompile.lower.tvm_steps import taken


@dataclass
class Task:
    """A function of the model, the same at the sizes that are timed, and how often it is called."""

    function: Any
    fixed: IRModule
    calls: int = 1


def tuned(module: IRModule, target: Target, example: Batch, tuning: Tuning, show: bool) -> ScheduleRule:
    """The rule that schedules what was tuned. Raises ConfigError, ArtifactError for a folder that cannot be used."""
    tasks = tasks_of(prepared(module, target), example)
    where = machine_of(target)
    records = Records(Path(tuning.folder) / where)
    missing = records.missing([task.fixed for task in tasks], tuning.trials)
    if missing and where != machine():
        raise ConfigError(
            f"loops for {where} are timed on such a machine, and this one is {machine()}: export there with "
            f'target="cpu" and the same tuning, and copy its folder to {records.folder}; or give trials=0'
        )
    if missing:
        try_out(tasks, Target({**target.export(), "num-cores": os.cpu_count() or 1}), records, missing, show)
        records.finish([task.fixed for task in tasks], tuning.trials)
    found = [(task.function, records.best(task.fixed)) for task in tasks]
    # without steps, it is the schedule that there is without tuning
    return Recorded([(function, record.trace) for function, record in found if record and record.trace.insts])


def try_out(tasks: Sequence[Task], target: Target, records: Records, trials: int, show: bool) -> None:
    new = [task for task in tasks if records.best(task.fixed) is None][:trials]
    with bench(target) as timing, progress("tuning", trials, show) as bar:
        for task in new:
            schedule = Loops().apply(task.fixed["main"], target, False)
            measure(task.fixed, schedule, records.database, target, timing)
            bar.advance()
        if trials > len(new):
            functions = [(task.fixed, task.calls) for task in tasks]
            search(functions, target, records.database, trials - len(new), timing, bar.advance)


def tasks_of(module: IRModule, example: Batch) -> list[Task]:
    """Functions that sum or compare something; what merely moves or maps values gains nothing from another order."""
    main = module["main"]
    sizes = {
        size: given
        for parameter, value in zip(main.params, example, strict=True)
        for size, given in zip(parameter.ty.shape.values, value.shape, strict=True)
        if not isinstance(size, tirx.IntImm)
    }
    found: dict[str, Task] = {}

    def visit(call: Any) -> None:
        if not isinstance(call, relax.Call) or call.op != Op.get("relax.call_tir"):
            return
        name, function = call.args[0].name_hint, module[call.args[0]]
        if name in found:
            found[name].calls += 1
        elif reduces(function):
            found[name] = Task(function, fixed(function, call))

    relax.analysis.post_order_visit(relax.transform.BindSymbolicVars(sizes, "main")(module)["main"], visit)
    return list(found.values())


def reduces(function: Any) -> bool:
    blocks = analysis.normalize_prim_func(s_tir.Schedule(function))
    return blocks is not None and any("R" in block.dom_kind() for block in blocks)


def fixed(function: Any, call: Any) -> IRModule:
    """The function at the sizes of the call."""
    made = call.ty_args[0]
    given = [*call.args[1].fields, *getattr(made, "fields", [made])]
    types = [getattr(each, "ty", each) for each in given]  # of a tensor, or of one that the call makes
    pairs = zip(function.params, given, types, strict=True)
    # first sizes that are given as such: no buffer tells them
    sizes = {parameter: size for parameter, size, of in pairs if not hasattr(of, "shape")}
    function = function.specialize(sizes) if sizes else function
    shaped = [of for of in types if hasattr(of, "shape")]
    buffers = {
        parameter: tirx.decl_buffer(of.shape.values, dtype=parameter.ty.dtype, name=parameter.name)
        for parameter, of in zip(function.params, shaped, strict=True)
    }
    return IRModule({"main": function.specialize(buffers).with_attr("global_symbol", "main")})


def machine_of(target: Target) -> str:
    return str(target.attrs.get("mtriple", "")).split("-")[0] or machine()


class Recorded(ScheduleRule):  # type: ignore[misc]
    """A function that was tuned -> with the steps of its fastest trial."""

    def __init__(self, steps: Sequence[tuple[Any, Any]]) -> None:
        self.steps = steps

    def apply(self, func: Any, _target: Target, _tunable: bool) -> Any:
        for function, trace in self.steps:
            if structural_equal(function, func):
                try:
                    return taken(func, trace)
                except Exception:  # of TVM's: a step that wants a length that is known
                    return None
        return None
