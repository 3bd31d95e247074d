"""Attention as one node, and its meaning in standard operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hashcompile.core.method import CODES, Compute
from hashcompile.core.onnx_op import OnnxOp


@dataclass(frozen=True)
class Attention:
    """What softmax(scale * Q K' + mask) V is computed of.

    Q, K, V: `(B, S, H * D)` as linear layers leave them (rank 3), or `(B, H, S, D)` (rank 4).
    """

    heads: int
    kv_heads: int  # query head h reads head h // (heads // kv_heads)
    key_size: int  # features of one head of Q and K
    value_size: int  # of V
    ranks: tuple[int, ...]  # of Q, K and V; of Q alone where it holds all three: (B, S, (H + 2 Hkv) * D)
    scale: float
    causal: bool  # query i sees keys 0 to i only
    hidden_is_zero: bool  # a query whose scores are all -infinity becomes zeros, not NaN
    mask: torch.dtype | None  # bool hides where it is False, float is added
    compute: Compute  # "int8": our kernel rounds what it multiplies to 8 bits

    def op(self) -> OnnxOp:
        return OnnxOp(
            "Attention",
            self.overload,
            dict,
            {
                "num_heads": self.heads,
                "kv_heads": self.kv_heads,
                "key_size": self.key_size,
                "value_size": self.value_size,
                "scale": self.scale,
                "is_causal": int(self.causal),
                "hidden_is_zero": int(self.hidden_is_zero),
                "compute": CODES["int8" if self.compute == "int8" else "float"],
            },
            self.body(),
            self.out_shape,
            activations=len(self.ranks),
        )

    @property
    def packed(self) -> bool:
        return len(self.ranks) == 1

    def out_shape(self, q: Tensor, *_: Tensor) -> tuple[Any, ...]:
        return (q.shape[0], q.shape[1 if q.ndim == 3 else 2], self.heads * self.value_size)

    @property
    def overload(self) -> str:
        words = ["".join(f"{name}{rank}" for name, rank in zip("qkv", self.ranks, strict=False))]
        words = ["packed"] if self.packed else words
        words += ["grouped"] if self.heads != self.kv_heads else []
        words += ["causal"] if self.causal else []
        words += [str(self.mask).removeprefix("torch.")] if self.mask else []
        words += ["zero"] if self._may_hide else []
        return "_".join(words)

    @property
    def _may_hide(self) -> bool:
        return self.hidden_is_zero and self.mask is not None

    def body(self) -> str:
        names = ["Q", "K", "V", "mask"] if self.mask else ["Q"] if self.packed else ["Q", "K", "V"]
        lines = [
            "axis_0 = Constant<value_ints = [0]>()",
            "keep = Constant<value_ints = [0, 0]>()",
            "key_size = Constant<value_int: int = @key_size>()",
            "value_size = Constant<value_int: int = @value_size>()",
            "q_heads = Constant<value_int: int = @num_heads>()",
            "k_heads = Constant<value_int: int = @kv_heads>()",
            *self._unpacked(),
            *self._by_head("q", 0, "q_heads"),
            *self._by_head("k", 1, "k_heads"),
            *self._by_head("v", 2, "k_heads"),
            *self._repeated(),
            "factor = Constant<value_float: float = @scale>()",
            "query = Mul(q, factor)",
            "key = Transpose<perm = [0, 1, 3, 2]>(k)",
            "product = MatMul(query, key)",
            *self._hidden(),
            "weights_0 = Softmax<axis = -1>(scores)",
            *self._without_nan(),
            "mixed = MatMul(weights, v)",
            "by_token = Transpose<perm = [0, 2, 1, 3]>(mixed)",
            "features_0 = Mul(value_size, q_heads)",
            "features = Unsqueeze(features_0, axis_0)",
            "y_shape = Concat<axis = 0>(keep, features)",
            "Y = Reshape(by_token, y_shape)",
        ]
        attributes = "num_heads, kv_heads, key_size, value_size, scale, is_causal, hidden_is_zero, compute"
        text = "\n".join(f"    {line}" for line in lines)
        return f"\nAttention<{attributes}>({', '.join(names)}) => (Y)\n{{\n{text}\n}}"

    def _unpacked(self) -> Sequence[str]:
        if not self.packed:
            return []
        return [
            "q_width = Mul(q_heads, key_size)",
            "k_width = Mul(k_heads, key_size)",
            "q_width_1 = Unsqueeze(q_width, axis_0)",
            "k_width_1 = Unsqueeze(k_width, axis_0)",
            "widths = Concat<axis = 0>(q_width_1, k_width_1, k_width_1)",
            "Q_part, K_part, V_part = Split<axis = -1>(Q, widths)",
        ]

    def _by_head(self, name: str, position: int, heads: str) -> Sequence[str]:
        """Q, K or V as (B, H, S, D)."""
        given = f"{name.upper()}_part" if self.packed else name.upper()
        if not self.packed and self.ranks[position] == 4:
            return [f"{name}{'_own' if self._repeats(name) else ''} = Identity({given})"]
        return [
            f"{name}_count = Unsqueeze({heads}, axis_0)",
            f"{name}_size = Unsqueeze({'value' if name == 'v' else 'key'}_size, axis_0)",
            f"{name}_shape = Concat<axis = 0>(keep, {name}_count, {name}_size)",
            f"{name}_by_token = Reshape({given}, {name}_shape)",
            f"{name}{'_own' if self._repeats(name) else ''} = Transpose<perm = [0, 2, 1, 3]>({name}_by_token)",
        ]

    def _repeats(self, name: str) -> bool:
        return name != "q" and self.heads != self.kv_heads

    def _repeated(self) -> Sequence[str]:
        """Each head of the keys once for every query head that reads it."""
        if self.heads == self.kv_heads:
            return []
        return [
            "first = Constant<value_int = 0>()",
            "step = Constant<value_int = 1>()",
            "head = Range(first, q_heads, step)",
            "group = Div(q_heads, k_heads)",
            "head_read = Div(head, group)",
            "k = Gather<axis = 1>(k_own, head_read)",
            "v = Gather<axis = 1>(v_own, head_read)",
        ]

    def _hidden(self) -> Sequence[str]:
        """The mask and the future taken out of `product`: `scores`."""
        lines = ["nothing = Constant<value_float = -inf>()"] if self.causal or self.mask else []
        at = "product"
        if self.mask is torch.bool:
            lines.append(f"masked = Where(mask, {at}, nothing)")
        elif self.mask:
            lines.append(f"masked = Add({at}, mask)")
        at = "masked" if self.mask else at
        if self.causal:
            lines += [
                "square = Shape<start = 2>(product)",
                "ones = ConstantOfShape<value = float[1] {1}>(square)",
                "seen_0 = Trilu<upper = 0>(ones)",
                "seen = Cast<to = 9>(seen_0)",
                f"past = Where(seen, {at}, nothing)",
            ]
            at = "past"
        return [*lines, f"scores = Identity({at})"]

    def _without_nan(self) -> Sequence[str]:
        if not self._may_hide:
            return ["weights = Identity(weights_0)"]
        return [
            "last = Constant<value_ints = [-1]>()",
            "most = ReduceMax(scores, last)",
            "hidden = Equal(most, nothing)",
            "none = Constant<value_float = 0.0>()",
            "weights = Where(hidden, none, weights_0)",
        ]
