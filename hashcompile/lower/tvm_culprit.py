"""Which node is it that TVM cannot compile? Its errors name none: each binding of `main` is compiled by itself."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hashcompile.lower.tvm import FUNCTION, Lowered
from hashcompile.lower.tvm_platform import Platform


def culprit(lowered: Lowered, where: Platform) -> str:
    """The first node of which TVM compiles a step by no means; "" where every step compiles by itself."""
    steps = [binding for block in lowered.module["main"].body.blocks for binding in block.bindings]
    names = [step.var.name for step in steps]
    for place, step in enumerate(steps):
        if isinstance(step.value, relax.Call) and not calls_ours(step.value) and not compiles(step, where):
            # what a row emits on its way to the value of a node goes before that
            return next((lowered.described[name] for name in names[place:] if name in lowered.described), "")
    return ""


def calls_ours(call: Any) -> bool:
    return any(isinstance(each, relax.ExternFunc) and each.global_symbol == FUNCTION for each in call.args)


def compiles(step: Any, where: Platform) -> bool:
    try:
        with where.target:
            tvm.compile(alone(step), where.target, relax_pipeline=where.pipeline(None))
    except Exception:
        return False
    return True


def alone(step: Any) -> Any:
    """A module whose `main` takes what the step reads, and the sizes that are symbolic."""
    free = {each: relax.Var(each.name, each.ty) for each in relax.analysis.free_vars(step.value)}
    sizes = relax.Var("sizes", relax.ShapeType([*relax.analysis.free_symbolic_vars(step.value)]))
    builder = relax.BlockBuilder()
    with builder.function("main", [*free.values(), sizes]):
        with builder.dataflow():
            made = builder.emit_output(replaced(step.value, free))
        builder.emit_func_output(made)
    return builder.get()


def replaced(value: Any, by: dict[Any, Any]) -> Any:
    if isinstance(value, relax.Call):
        return relax.Call(value.op, [replaced(each, by) for each in value.args], value.attrs, value.ty_args)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([replaced(each, by) for each in value.fields])
    return by.get(value, value) if isinstance(value, relax.Var) else value
