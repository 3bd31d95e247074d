"""The next word of a text, from the words before it: an output layer of tens of thousands of classes."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hashcompile.core.console import progress

from . import data
from .checkpoint import Checkpoint
from .text import stories

PHRASES = 3000  # pairs of words that are words of their own
CONTEXT = 6  # words that are read
WIDTH = 64  # of a word
HIDDEN = 256
SAMPLED = 1024  # words of a training step beside those that are right


class Words(NamedTuple):
    vocabulary: list[str]
    train: Tensor  # (n, CONTEXT + 1) int64: words, then the one to be told
    test: Tensor


class NextWord(nn.Module):
    """A word in front of a word: embeddings side by side, one hidden layer, a score for every word there is."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed, self.dropout = nn.Embedding(words, WIDTH), nn.Dropout(0.3)
        self.hidden = nn.Linear(CONTEXT * WIDTH, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, words)

    def forward(self, ids: Tensor) -> Tensor:
        """`(B, CONTEXT)` int64 -> `scores: (B, words)`."""
        return self.head(self.describe(ids))

    def describe(self, ids: Tensor) -> Tensor:
        """`(B, CONTEXT)` int64 -> `(B, HIDDEN)`."""
        return self.norm(nn.functional.gelu(self.hidden(self.dropout(self.embed(ids).flatten(1)))))


def words() -> Words:
    """TinyStories and WikiText-2, word by word, the most frequent pairs of words as one (word2phrase: Mikolov et al.
    2013, arXiv 1310.4546). Every tenth part of the text is for testing.

    Raises MissingDataError.
    """
    articles = data.require("text", "wikitext2_test.txt").read_text(encoding="utf-8")
    tokens = re.findall(r"<unk>|\w+|[^\w\s]", " ".join(stories())) + articles.split()
    phrases = {pair for pair, _ in Counter(itertools.pairwise(tokens)).most_common(PHRASES)}
    vocabulary = [word for word, _ in Counter(tokens).most_common()] + sorted(map(" ".join, phrases))
    numbers = {word: i for i, word in enumerate(vocabulary)}
    ids = torch.tensor([numbers[token] for token in joined(tokens, phrases)])
    windows = ids.unfold(0, CONTEXT + 1, 1)
    tested = torch.arange(len(windows)) // 1000 % 10 == 9
    return Words(vocabulary, windows[~tested], windows[tested])


def joined(tokens: Sequence[str], phrases: Container[tuple[str, str]]) -> Iterator[str]:
    """The words from left to right, two that are a phrase together."""
    place = 0
    while place < len(tokens):
        pair = tuple(tokens[place : place + 2])
        length = 2 if pair in phrases else 1
        yield " ".join(pair[:length])
        place += length


def train(
    model: NextWord,
    windows: Tensor,
    steps: int,
    batch: int = 256,
    rate: float = 3e-3,
    keep: Path | None = None,
) -> None:
    """Adam, a rate that falls to zero in a straight line. A step scores the words of its batch and `SAMPLED` others,
    which stand for all that are left (sampled softmax: Jean et al. 2015, arXiv 1412.2007).

    keep: a file from which training goes on, to the same network.
    """
    tables = {"embed.weight", "head.weight"}  # of which a step moves few rows
    sparse = torch.optim.SparseAdam([p for name, p in model.named_parameters() if name in tables], rate)
    dense = torch.optim.Adam([p for name, p in model.named_parameters() if name not in tables], rate)
    draw = torch.Generator().manual_seed(0)
    often = torch.bincount(windows[:, CONTEXT], minlength=len(model.head.bias))
    model.head.bias.data = ((often + 0.5) / len(windows)).log()  # most words are too rare to learn that much
    model.embed.sparse = True
    model.train()
    epoch = max(1, len(windows) // batch)
    checkpoint = Checkpoint(keep, epoch, model, (sparse, dense), (torch.default_generator, draw))
    with progress("training", steps) as bar:
        bar.advance(checkpoint.done)
        for step in range(checkpoint.done, steps):
            some = windows[torch.randint(len(windows), (batch,), generator=draw)]
            right, place = some[:, CONTEXT].unique(return_inverse=True)
            others = torch.randint(len(model.head.bias), (SAMPLED,), generator=draw)
            others = others[~torch.isin(others, right)]
            stand_for = math.log((len(model.head.bias) - len(right)) / len(others))
            rows, hidden = torch.cat([right, others]), model.describe(some[:, :CONTEXT])
            scores = (
                hidden @ nn.functional.embedding(rows, model.head.weight, sparse=True).T
                + model.head.bias[rows]
            )
            scores = torch.cat([scores[:, : len(right)], scores[:, len(right) :] + stand_for], 1)
            for optimizer in (sparse, dense):
                optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
                optimizer.zero_grad()
            nn.functional.cross_entropy(scores, place).backward()
            for optimizer in (sparse, dense):
                optimizer.step()
            bar.advance()
            checkpoint.reached(step + 1)
    model.embed.sparse = False
    model.eval()
