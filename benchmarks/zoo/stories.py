"""stories260K: a real Llama of 260,032 parameters that tells children's stories, and its tokenizer."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from . import data

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, LONGEST = 64, 172, 5, 8, 4, 512, 512
HEAD = DIM // HEADS
BOS, FIRST_BYTE = 1, 3  # tokens 3 .. 258 are the 256 bytes

_batch, _sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=LONGEST)
DYNAMIC = ({0: _batch, 1: _sequence},)


class Attention(nn.Module):
    """Grouped-query attention: 8 query heads share 4 key and value heads; rotary positions; causal."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.k, self.v = (nn.Linear(DIM, KV_HEADS * HEAD, bias=False) for _ in "kv")

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x: (B, S, DIM)`, `cos, sin: (S, HEAD / 2)` -> `(B, S, DIM)`."""
        batch, length, _ = x.shape
        q = rotate(self.q(x).view(batch, length, HEADS, HEAD).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(batch, length, KV_HEADS, HEAD).transpose(1, 2), cos, sin)
        v = self.v(x).view(batch, length, KV_HEADS, HEAD).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(y.transpose(1, 2).reshape(batch, length, DIM))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): each pair of neighbouring features turns by its position's angle."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Layer(nn.Module):
    """Attention, then SwiGLU; each behind an RMS norm and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.RMSNorm(DIM, 1e-5), nn.RMSNorm(DIM, 1e-5)
        self.attention = Attention()
        self.gate, self.up = nn.Linear(DIM, HIDDEN, bias=False), nn.Linear(DIM, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, DIM, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`(B, S, DIM)` -> `(B, S, DIM)`."""
        x = x + self.attention(self.attention_norm(x), cos, sin)
        y = self.feed_norm(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """The output layer is the embedding itself."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(DIM, 1e-5)
        self.output = nn.Linear(DIM, VOCABULARY, bias=False)
        self.output.weight = self.embedding.weight
        angles = torch.outer(torch.arange(LONGEST), 10_000.0 ** -(torch.arange(0, HEAD, 2) / HEAD))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens: (B, S) int64`, S <= 512 -> `logits: (B, S, 512)` of the token that follows each."""
        length = tokens.shape[1]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.output(self.norm(x))


def load() -> Llama:
    """The trained model. Raises MissingDataError."""
    names = {"attention.q": "wq", "attention.k": "wk", "attention.v": "wv", "attention.o": "wo"}
    names |= {"attention_norm": "rms_att", "feed_norm": "rms_ffn", "gate": "w1", "down": "w2", "up": "w3"}
    with np.load(data.require("stories260k", "stories260K_weights.npz")) as archive:
        weights = {name: torch.from_numpy(archive[name]) for name in archive if name != "config"}
    state = {"embedding.weight": weights["tok_emb"], "output.weight": weights["tok_emb"]}
    state["norm.weight"] = weights["rms_final"]
    for i in range(LAYERS):
        state |= {f"layers.{i}.{ours}.weight": weights[theirs][i] for ours, theirs in names.items()}
    model = Llama()
    model.load_state_dict(state)
    return model.eval()


class Tokenizer:
    """Byte-pair encoding as in llama2.c: the highest-scoring pair merges first; odd characters are bytes."""

    def __init__(self) -> None:
        raw, self.pieces, scores = data.require("stories260k", "tok512.bin").read_bytes(), [], []
        at = 4  # behind the length of the longest piece
        while at < len(raw):
            score, length = struct.unpack_from("<fi", raw, at)
            self.pieces.append(raw[at + 8 : at + 8 + length].decode("utf-8"))
            scores.append(score)
            at += 8 + length
        self._ids = {piece: i for i, piece in enumerate(self.pieces)}
        self._scores = scores
        self._word = lru_cache(maxsize=None)(self._merge)

    def encode(self, text: str) -> list[int]:
        """BOS and the tokens of `text`. No piece has a space inside, so words are merged one by one."""
        words = (" " + text).replace(" ", "\0 ").split("\0")[1:]
        return [BOS, *(token for word in words for token in self._word(word))]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without the space that `encode` put in front."""
        raw = b"".join(
            bytes([t - FIRST_BYTE]) if FIRST_BYTE <= t < FIRST_BYTE + 256 else self.pieces[t].encode()
            for t in tokens
            if t > BOS + 1
        )
        return raw.decode("utf-8", errors="replace").removeprefix(" ")

    def _merge(self, word: str) -> tuple[int, ...]:
        tokens: list[int] = []
        for character in word:
            raw = (byte + FIRST_BYTE for byte in character.encode())
            tokens += [self._ids[character]] if character in self._ids else raw
        while True:
            pairs = (self.pieces[a] + self.pieces[b] for a, b in pairwise(tokens))
            known = [(self._scores[self._ids[pair]], -i) for i, pair in enumerate(pairs) if pair in self._ids]
            if not known:
                return tuple(tokens)
            at = -max(known)[1]
            tokens[at : at + 2] = [self._ids[self.pieces[tokens[at]] + self.pieces[tokens[at + 1]]]]


Forward = Callable[..., Tensor]  # tokens: (B, S) -> logits: (B, S, VOCABULARY)


def batches(tokens: Sequence[Sequence[int]], size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """`inputs, following: (size, S) int64`: stories of like length, cut to 512 tokens; -100 at the end."""
    ordered = sorted((list(story[: LONGEST + 1]) for story in tokens), key=len)
    for first in range(0, len(ordered), size):
        rows = ordered[first : first + size]
        width = len(rows[-1])
        padded = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
        yield padded[:, :-1].clamp(min=0), padded[:, 1:]


def nats(forward: Forward, tokens: Sequence[Sequence[int]]) -> float:
    """Mean negative log-likelihood of a token given those before it; its exponential is the perplexity."""
    total, count = 0.0, 0
    for inputs, following in batches(tokens):
        logits = forward(inputs).flatten(0, 1)
        total += float(nn.functional.cross_entropy(logits, following.flatten(), reduction="sum"))
        count += int((following >= 0).sum())
    return total / count


def continuation(forward: Forward, prompt: Sequence[int], count: int) -> list[int]:
    """`prompt` and the `count` likeliest tokens after it, one by one."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(forward(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens
