"""What one run of a graph computes: multiply-accumulate operations of its convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hashcompile.core.undecoded import Undecoded

aten = torch.ops.aten


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Floating-point operations of attention on (B, heads, length, width)."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])


ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention
}  # torch's own table has it for GPUs only


def macs(graph: fx.GraphModule, inputs: Sequence[Any]) -> int:
    """Of `graph` on flat `inputs`; nothing is really computed."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = [mode.from_tensor(each) if isinstance(each, Tensor) else each for each in inputs]
    with torch.no_grad(), mode, FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        Undecoded(graph).run(*fake, enable_io_processing=False)
    return int(counter.get_total_flops()) // 2
