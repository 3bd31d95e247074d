"""Steps of a schedule that were found at one size -> those for the function of any size.

Given:  t1, t2 = sample_perfect_tile(i);  i1, i2 = split(i, [t1, t2])    # i of length 8, t1 = 4, t2 = 2
Result: i1, i2 = split(i, [None, 1])                                     # i of unknown length

Only loops whose length is unknown have other factors: the outermost part is as long as need be, the inner ones are 1.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.schedule import Instruction, Trace

TILE = "SamplePerfectTile"


def taken(function: Any, trace: Trace) -> s_tir.Schedule:
    """The schedule of `function` after the steps of `trace`. TVM's errors pass: not every step can be taken."""
    schedule = s_tir.Schedule(function)
    steps_for(function, trace).apply_to_schedule(schedule, remove_postproc=False)
    return schedule


def steps_for(function: Any, trace: Trace) -> Trace:
    decisions = dict(trace.decisions.items())
    steps: list[Instruction] = []
    factors: list[tuple[Any, int | None]] = []  # of loops of unknown length
    for step in trace.insts:
        if step.kind.name == TILE and unknown(function, Trace(steps, decisions), step.inputs[0]):
            factors += zip(step.outputs, [None, *[1] * (len(step.outputs) - 1)], strict=True)
            continue
        inputs = [instead(given, factors) for given in step.inputs]
        made = Instruction(step.kind, inputs, list(step.attrs), list(step.outputs))
        if step in decisions:
            decisions[made] = decisions.pop(step)
        steps.append(made)
    return Trace(steps, {step: decisions[step] for step in steps if step in decisions})


def instead(given: Any, factors: list[tuple[Any, int | None]]) -> Any:
    for known, factor in factors:
        if hasattr(given, "same_as") and given.same_as(known):
            return factor
    return given


def unknown(function: Any, before: Trace, loop: Any) -> bool:
    """Is the length of `loop`, as it is after the steps `before`, symbolic?"""
    schedule = s_tir.Schedule(function)
    before.apply_to_schedule(schedule, remove_postproc=False)
    for step, same in zip(before.insts, schedule.trace.insts, strict=True):
        for old, new in zip(step.outputs, same.outputs, strict=True):
            if old.same_as(loop):
                return not isinstance(schedule.get(new).extent, tirx.IntImm)
    raise AssertionError("a loop that no step made")
