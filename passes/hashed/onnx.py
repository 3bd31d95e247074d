"""The ONNX row: the hash in standard operators, word for word as `hash.py` has it.

An embedding hashes the rows that are read, so its table is never in memory. A linear layer of tiles is multiplied from
the pool by our kernel, where that pays. Any other weight is constant: a runtime computes it once, while it loads the
model.
"""

from __future__ import annotations

from torch import Tensor, fx

from hashcompile.core.layers import Kind
from hashcompile.core.method import Compute
from hashcompile.core.onnx_op import Attribute, OnnxOp, weight_of_rows, weight_shapes
from hashcompile.core.packing import TILE
from hashcompile.passes.hashed.hash import BITS, LAST_SHIFT, MASK, ROUNDS
from hashcompile.passes.hashed.weight import HashedWeight

# Where tiles read from a pool are faster than a dense weight: by measurement, the pool must stay in the L2 cache of a
# core, and the dense weight must not.
POOL_BYTES, DENSE_BYTES = 1 << 20, 1 << 22


def fused(code: HashedWeight, consumer: fx.Node, kind: Kind, compute: Compute) -> OnnxOp | None:
    """An embedding, or a linear layer of tiles; any other layer gets the dense weight."""
    if kind is Kind.LINEAR and pays(code):
        return linear(code, len(consumer.args) > 2 and consumer.args[2] is not None)
    return embedding(code) if kind is Kind.EMBEDDING else None


def pays(code: HashedWeight) -> bool:
    """Is it faster to multiply from the pool than from the dense weight? The kernel knows no row of padding."""
    fits = 4 * len(code.values) <= POOL_BYTES and 4 * code.view.numel >= DENSE_BYTES
    return code.tile and code.padding is None and fits


def linear(code: HashedWeight, biased: bool) -> OnnxOp:

    def stored() -> dict[str, Tensor]:
        """What is multiplied last comes first."""
        parts = code.storage()
        return {name: parts[name] for name in ("gain", "scale", "pool", "values") if name in parts}

    body = f"""
HashedLinear<rows, in_features, seed, scaled>(X, {", ".join(stored())}{", bias" if biased else ""}) => (Y)
{{
{numbers(code)}
    ids = Range(zero, rows, one)
{some_rows(code)}
    W = Transpose<perm = [1, 0]>(read)
    {"product" if biased else "Y"} = MatMul(X, W)
{"    Y = Add(product, bias)" if biased else ""}
}}"""
    rows = code.view.size[0]
    return OnnxOp(
        "HashedLinear",
        overload(code) + ("_bias" if biased else ""),
        stored,
        attributes(code) | {"scaled": int(code.scale is not None)},
        body,
        lambda x: (*x.shape[:-1], rows),
    )


def embedding(code: HashedWeight) -> OnnxOp:
    body = f"""
HashedEmbedding<{", ".join(attributes(code))}>(X, {", ".join(code.storage())}) => (Y)
{{
    flat_shape = Constant<value_ints = [-1]>()
    ids = Reshape(X, flat_shape)
{numbers(code)}
{some_rows(code)}
    ids_shape = Shape(X)
    columns_1 = Unsqueeze(columns, axis_0)
    out_shape = Concat<axis = 0>(ids_shape, columns_1)
    Y = Reshape(read, out_shape)
}}"""
    columns = code.view.size[1]
    return OnnxOp(
        "HashedEmbedding",
        overload(code),
        code.storage,
        attributes(code),
        body,
        lambda ids: (*ids.shape, columns),
        kernel=False,
    )


def decode(code: HashedWeight) -> OnnxOp:
    """The dense weight: K values in the file, dense in memory."""
    body = f"""
HashedDecode<{", ".join(attributes(code))}, row_shape, order, weight_shape>({", ".join(code.storage())}) => (W)
{{
{numbers(code)}
    ids = Range(zero, rows, one)
{some_rows(code)}
{weight_of_rows("read")}
}}"""
    return OnnxOp(
        "HashedDecode",
        overload(code),
        code.storage,
        attributes(code) | weight_shapes(code.view),
        body,
        lambda: code.view.shape,
        activations=0,
    )


def attributes(code: HashedWeight) -> dict[str, Attribute]:
    rows, columns = code.view.size
    given: dict[str, Attribute] = {"rows": rows, "in_features": columns, "seed": code.seed}
    return given if code.padding is None else given | {"padding": code.padding}


def overload(code: HashedWeight) -> str:
    scaled = "" if code.scale is None else "_scaled" if len(code.scale) == code.view.size[0] else "_gain"
    padded = "" if code.padding is None else "_padding"
    return ("tile" if code.tile else "element") + scaled + ("_pool" if code.pooled else "") + padded


def numbers(code: HashedWeight) -> str:
    named = "    values = Identity(pool)\n    scale = Identity(gain)\n" if code.pooled else ""
    return f"""\
{named}\
    zero = Constant<value_int = 0>()
    one = Constant<value_int = 1>()
    two = Constant<value_int = 2>()
    mask = Constant<value_int = {MASK}>()
    axis_0 = Constant<value_ints = [0]>()
    axis_1 = Constant<value_ints = [1]>()
    rows = Constant<value_int: int = @rows>()
    columns = Constant<value_int: int = @in_features>()
    seed = Constant<value_int: int = @seed>()"""


def mix(source: str, name: str) -> str:
    """`source` int64 -> `name`, of the same shape."""
    text, last = "", source
    for i, (shift, factor) in enumerate(ROUNDS):
        text += f"""\
    {name}_divisor_{i} = Constant<value_int = {2**shift}>()
    {name}_factor_{i} = Constant<value_int = {factor}>()
    {name}_high_{i} = Div({last}, {name}_divisor_{i})
    {name}_folded_{i} = BitwiseXor({last}, {name}_high_{i})
    {name}_product_{i} = Mul({name}_folded_{i}, {name}_factor_{i})
    {name}_round_{i} = BitwiseAnd({name}_product_{i}, mask)
"""
        last = f"{name}_round_{i}"
    return f"""{text}\
    {name}_divisor = Constant<value_int = {2**LAST_SHIFT}>()
    {name}_high = Div({last}, {name}_divisor)
    {name} = BitwiseXor({last}, {name}_high)"""


def some_rows(code: HashedWeight) -> str:
    """ids (M,) -> read: (M, in_features). The rows' own hashes are gathered, so an id out of range is an error."""
    side = TILE if code.tile else 1
    text = f"""\
    side = Constant<value_int = {side}>()
    row_number = Range(zero, rows, one)
    row_tile = Div(row_number, side)
    row_even = Mul(row_tile, two)
    row_sum = Add(row_even, seed)
    row_start = BitwiseAnd(row_sum, mask)
{mix("row_start", "row_hash")}
    column_number = Range(zero, columns, side)
    column_tile = Div(column_number, side)
    column_even = Mul(column_tile, two)
    column_odd = Add(column_even, one)
    column_sum = Add(column_odd, seed)
    column_start = BitwiseAnd(column_sum, mask)
{mix("column_start", "column_hash")}
    down_flat = Gather(row_hash, ids)
    down = Unsqueeze(down_flat, axis_1)
    across = Unsqueeze(column_hash, axis_0)
    both = BitwiseXor(down, across)
{mix("both", "hash")}
    negated = Neg(values)
    table = Concat<axis = 0>(values, negated)
    count = Size(values)
    tile_values = Constant<value_int = {side * side}>()
    buckets = Div(count, tile_values)
    low = BitwiseAnd(hash, one)
    high = Div(hash, two)
    range = Constant<value_int = {2 ** (BITS - 1)}>()
    share = Mul(high, buckets)
    bucket = Div(share, range)
    bucket_start = Mul(bucket, tile_values)
    half = Mul(low, count)
    start = Add(bucket_start, half)
"""
    if code.tile:
        text += """\
    axis_2 = Constant<value_ints = [2]>()
    row_within = Mod(ids, side)
    row_place = Unsqueeze(row_within, axis_1)
    column_within = Range(zero, tile_values, side)
    column_place = Unsqueeze(column_within, axis_0)
    within_flat = Add(row_place, column_place)
    within = Unsqueeze(within_flat, axis_1)
    start_tile = Unsqueeze(start, axis_2)
    places = Add(start_tile, within)
    places_flat = Flatten<axis = 1>(places)
    first_column = Constant<value_ints = [0]>()
    last_column = Unsqueeze(columns, axis_0)
    index = Slice(places_flat, first_column, last_column, axis_1)
"""
    else:
        text += "    index = Identity(start)\n"
    if code.padding is not None:
        text += """\
    padding = Constant<value_int: int = @padding>()
    is_padding_flat = Equal(ids, padding)
    is_padding = Unsqueeze(is_padding_flat, axis_1)
    nothing = Constant<value_floats = [0.0]>()
    table_and_zero = Concat<axis = 0>(table, nothing)
    zero_place = Size(table)
    index_or_zero = Where(is_padding, zero_place, index)
"""
    table, index = ("table", "index") if code.padding is None else ("table_and_zero", "index_or_zero")
    text += f"    {'read' if code.scale is None else 'plain'} = Gather({table}, {index})"
    if code.scale is not None and len(code.scale) != code.view.size[0]:
        text += "\n    read = Mul(plain, scale)"
    elif code.scale is not None:
        text += """
    row_scale = Gather(scale, ids)
    scale_column = Unsqueeze(row_scale, axis_1)
    read = Mul(plain, scale_column)"""
    return text
