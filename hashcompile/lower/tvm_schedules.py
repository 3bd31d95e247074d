"""How TVM compiles what lies between our kernels.

TVM's own pipeline for CPUs makes loops of operators, in the order of their definition and for one thread. What LLVM
makes of them is fast where every value is read once; a product of matrices, whose inner loop then walks down a column,
is not. Here every function gets a schedule first: threads share the outer loops of what is long, and products run
along the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import s_tir
from tvm.ir import IRModule
from tvm.ir.transform import Pass
from tvm.relax.backend.cpu_generic import pipeline as phases
from tvm.relax.backend.cuda import pipeline as cuda_phases
from tvm.s_tir import dlight
from tvm.s_tir.dlight import ScheduleRule, analysis
from tvm.target import Target

WORTH_THREADS = (
    1 << 17
)  # steps of a loop, some 50 us: TVM waits for each of its threads, at times for milliseconds


class Loops(ScheduleRule):  # type: ignore[misc]
    """A function without a schedule -> its loops in order, the outer ones parallel.

    Given:  for i, j, k: C[i, j] += A[i, k] * B[k, j]
    Result: parallel for i: for k, j: C[i, j] += A[i, k] * B[k, j], where there are steps enough
    """

    def apply(self, func: Any, _target: Target, _tunable: bool) -> Any:
        schedule = s_tir.Schedule(func)
        blocks = analysis.normalize_prim_func(schedule)
        if blocks is None:
            return None
        if not any(sums(schedule, block) for block in blocks):
            blocks = dlight.try_inline(schedule, blocks)
        for block in blocks:
            loops, kinds = schedule.get_loops(block.block_rv), block.dom_kind()
            free = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "S"]
            summed = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != "S"]
            if len(free) < 2:
                continue
            long = steps(schedule, loops) >= WORTH_THREADS
            outer, inner = schedule.fuse(*free[:-1]), free[-1]
            product = len(summed) == 1 and len(schedule.get(block.block_rv).reads) == 2
            schedule.reorder(*((outer, *summed, inner) if product else (outer, inner, *summed)))
            if long:
                schedule.parallel(outer)
        return schedule


def sums(schedule: s_tir.Schedule, block: Any) -> bool:
    """Does it begin with an initial value? A sum of one term is no loop of kind R, and cannot be inlined either."""
    return schedule.get(block.block_rv).init is not None


def steps(schedule: s_tir.Schedule, loops: Sequence[Any]) -> int:
    """How often the body of `loops` runs at the least: a size that is known later may be 1."""
    extents = (schedule.get(loop).extent for loop in loops)
    return math.prod(int(extent) for extent in extents if isinstance(extent, tvm.tirx.IntImm))


class OrNone(ScheduleRule):  # type: ignore[misc]
    """A rule of TVM's that may stumble over what it does not fit; the next one has its turn then."""

    def __init__(self, rule: ScheduleRule) -> None:
        self.rule = rule

    def apply(self, func: Any, target: Target, tunable: bool) -> Any:
        try:
            return self.rule.apply(func, target, tunable)
        except Exception:
            return None


def prepared(module: IRModule, target: Target) -> IRModule:
    """Functions as they are when they are scheduled."""
    with target:
        return tvm.transform.Sequential(to_loops(target))(module)


def to_loops(target: Target) -> list[Pass]:
    return [*phases.library_dispatch_passes(target), *phases.legalize_passes(target)]


def pipeline(target: Target, tuned: ScheduleRule | None = None) -> Pass:
    """TVM's own, with the rule in front of the loops' lowering; `tuned` goes before it."""
    rules = [Loops()] if tuned is None else [tuned, Loops()]
    return tvm.transform.Sequential(
        [
            *to_loops(target),
            dlight.ApplyDefaultSchedule(*rules),
            *phases.dataflow_lower_passes(target),
            *phases.finalize_passes(target),
        ]
    )


def cuda_pipeline(target: Target) -> Pass:
    """TVM's own for CUDA, with its rules for GPUs, the last of which fits all."""
    gpu = dlight.gpu
    rules = [gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback()]
    return tvm.transform.Sequential(
        [
            *cuda_phases.library_dispatch_passes(target),
            *cuda_phases.legalize_passes(target)[:-1],  # the last one has these rules, too
            dlight.ApplyDefaultSchedule(*map(OrNone, rules)),
            *cuda_phases.dataflow_lower_passes(target),
            *cuda_phases.finalize_passes(target),
        ]
    )
