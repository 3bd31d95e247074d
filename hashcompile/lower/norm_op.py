"""A norm over the last dimension as one node, and its meaning in standard operators."""

from __future__ import annotations

from dataclasses import dataclass

from hashcompile.core.onnx_op import OnnxOp


@dataclass(frozen=True)
class Norm:
    """Of s = X + residual, (..., N):

    layer norm: (s - mean(s)) / sqrt(var(s) + epsilon) * weight + bias
    RMS norm:   s / sqrt(mean(s^2) + epsilon) * weight
    """

    centered: bool  # layer norm
    epsilon: float
    bias: bool
    residual: bool

    def op(self) -> OnnxOp:
        attributes = {"centered": int(self.centered), "epsilon": self.epsilon}
        return OnnxOp("Norm", self.overload, dict, attributes, self.body(), lambda x: x.shape)

    @property
    def overload(self) -> str:
        words = ["layer" if self.centered else "rms"]
        words += ["bias"] if self.bias else []
        words += ["residual"] if self.residual else []
        return "_".join(words)

    def body(self) -> str:
        inputs = ["X", "weight", *(["bias"] if self.bias or self.residual else [])]
        inputs += ["residual"] if self.residual else []
        lines = ["total = Add(X, residual)" if self.residual else "total = Identity(X)"]
        lines += self._layer_norm() if self.centered else self._rms_norm()
        text = "\n".join(f"    {line}" for line in lines)
        return f"\nNorm<centered, epsilon>({', '.join(inputs)}) => (Y)\n{{\n{text}\n}}"

    def _layer_norm(self) -> list[str]:
        bias = ", bias" if self.bias else ""
        return [f"Y = LayerNormalization<axis = -1, epsilon: float = @epsilon>(total, weight{bias})"]

    @staticmethod
    def _rms_norm() -> list[str]:
        return [
            "square = Mul(total, total)",
            "last = Constant<value_ints = [-1]>()",
            "mean = ReduceMean(square, last)",
            "least = Constant<value_float: float = @epsilon>()",
            "shifted = Add(mean, least)",
            "size = Sqrt(shifted)",
            "unit = Div(total, size)",
            "Y = Mul(unit, weight)",
        ]
