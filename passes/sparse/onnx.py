"""A sparse weight in standard operators: the dense weight, which a runtime folds while it loads the file.

There is no kernel that computes on it: a sparse weight is storage here. Bits become numbers plane by plane; a running
sum of the bitmap says which kept weight stands where, and one of the gaps where each kept weight stands.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from hashcompile.core.layers import Kind
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import Attribute, OnnxOp, weight_of_rows, weight_shapes
from hashcompile.passes.sparse.weight import SparseCodes, SparseWeight


def fused(code: SparseWeight, consumer: fx.Node, kind: Kind, compute: Compute) -> OnnxOp | None:
    return None


def decode(code: SparseWeight) -> OnnxOp:
    view = code.view
    held = constants(code)
    gapped, coded = "gaps" in held, isinstance(code, SparseCodes)
    attributes: dict[str, Attribute] = {
        "weights": view.numel,
        "kept": max(1, int(code.mask.sum())),
        "columns": view.size[1],
    } | weight_shapes(view)
    if gapped:
        attributes |= {"entries": int(code.storage()["entries"]), "filler": 2 ** len(held["gaps"]) - 1}
    body = f"""
SparseDecode<{", ".join(attributes)}>({", ".join(held)}) => (W)
{{
    any = Constant<value_ints = [-1]>()
    zero = Constant<value_ints = [0]>()
    axis_1 = Constant<value_ints = [1]>()
    axis_2 = Constant<value_ints = [2]>()
    axis = Constant<value_int = 0>()
    one = Constant<value_int = 1>()
    two = Constant<value_int = 2>()
    shifts = Constant<value = uint8[8] {{0, 1, 2, 3, 4, 5, 6, 7}}>()
    bit = Constant<value = uint8 {{1}}>()
    weights_0 = Constant<value_int: int = @weights>()
    weights = Reshape(weights_0, any)
    kept_0 = Constant<value_int: int = @kept>()
    kept = Reshape(kept_0, any)
    columns_0 = Constant<value_int: int = @columns>()
    columns = Reshape(columns_0, any)
{coded_values() if coded else "    value = Identity(values)"}
{by_gaps() if gapped else by_bitmap()}
{scaled() if coded else "    rows = Identity(flat)"}
{weight_of_rows("rows")}
}}"""
    name = ("gaps" if gapped else "bitmap") + ("_coded" if coded else "")
    return OnnxOp("SparseDecode", name, lambda: held, attributes, body, lambda: view.shape, activations=0)


def constants(code: SparseWeight) -> dict[str, Tensor]:
    """What is stored, but the number of entries, which is an attribute. Nothing kept is read as one zero."""
    held = {name: value for name, value in code.storage().items() if name != "entries"}
    if not bool(code.mask.any()):
        held |= (
            {"values": torch.zeros(1)}
            if "values" in held
            else {"codes": torch.zeros(len(held["codes"]), 1).byte()}
        )
    return held


def number(source: str, count: str, result: str) -> str:
    """Planes `source` (b, bytes) -> the first `count` numbers, int64."""
    return f"""\
    {result}_bytes = Unsqueeze({source}, axis_2)
    {result}_shifted = BitShift<direction = "RIGHT">({result}_bytes, shifts)
    {result}_bits = BitwiseAnd({result}_shifted, bit)
    {result}_flat = Flatten<axis = 1>({result}_bits)
    {result}_long = Cast<to = 7>({result}_flat)
    {result}_cut = Slice({result}_long, zero, {count}, axis_1)
    {result}_planes = Shape<start = 0, end = 1>({source})
    {result}_last = Squeeze({result}_planes)
    {result}_exponents = Range(axis, {result}_last, one)
    {result}_powers = Pow(two, {result}_exponents)
    {result}_column = Unsqueeze({result}_powers, axis_1)
    {result}_parts = Mul({result}_cut, {result}_column)
    {result} = ReduceSum<keepdims = 0>({result}_parts, zero)"""


def by_bitmap() -> str:
    """flat (weights,): the kept weight whose turn it is, or zero."""
    return f"""\
{number("bitmap", "weights", "here")}
    counted = CumSum(here, axis)
    turn = Sub(counted, one)
    rank = Max(turn, axis)
    spread = Gather(value, rank)
    there = Cast<to = 1>(here)
    flat = Mul(spread, there)"""


def by_gaps() -> str:
    """flat (weights,): every entry at its place, fillers as the zeros that they stand on."""
    return f"""\
    entries_0 = Constant<value_int: int = @entries>()
    entries = Reshape(entries_0, any)
    most = Constant<value_int: int = @filler>()
{number("gaps", "entries", "code")}
    after = Add(code, one)
    advance = Min(after, most)
    ends = CumSum(advance, axis)
    place = Sub(ends, one)
    places = Unsqueeze(place, axis_1)
    stands = Less(code, most)
    real = Cast<to = 7>(stands)
    counted = CumSum(real, axis)
    turn = Sub(counted, one)
    rank = Max(turn, axis)
    read = Gather(value, rank)
    there = Cast<to = 1>(stands)
    entry = Mul(read, there)
    nothing = ConstantOfShape(weights)
    flat = ScatterND(nothing, places, entry)"""


def coded_values() -> str:
    return f"""\
{number("codes", "kept", "index")}
    value = Gather(codebook, index)"""


def scaled() -> str:
    return """\
    column_shape = Concat<axis = 0>(any, columns)
    unscaled = Reshape(flat, column_shape)
    scale_column = Unsqueeze(scale, axis_1)
    rows = Mul(unscaled, scale_column)"""
