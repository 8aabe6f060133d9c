"""The formulas of docs/decoders.md, computed in NumPy as they stand there, are what the decoders compute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from showtell.decoders import Decoder, create_decoder, list_decoders
from showtell.decoders.registry import DECODERS

CHANNELS, CELLS, VOCABULARY, WORDS = 12, 4, 9, [1, 5, 7, 4]

Array = np.ndarray[Any, np.dtype[np.float64]]
State = tuple[Array, ...]
OPTIONS: dict[str, dict[str, Any]] = {
    "show-tell": {"embedding_size": 6, "hidden_size": 8},
    "inject-lstm": {"image_bottleneck": 5, "embedding_size": 6, "hidden_size": 8, "output_bottleneck": 7},
    "attend-gru-additive": {
        "feature_size": 5,
        "attention_size": 7,
        "embedding_size": 6,
        "hidden_size": 8,
        "initial_state": "mean",
        "gate": True,
    },
    "attend-gru-dot": {"size": 8},
    "top-down-lstm": {
        "feature_size": 5,
        "attention_size": 7,
        "embedding_size": 6,
        "hidden_size": 8,
        "tied": True,
    },
    "adaptive-lstm": {
        "size": 8,
        "attention_size": 7,
        "embedding_size": 6,
        "initial_state": "mean",
        "tied": True,
    },
    "multi-head-lstm": {"feature_size": 5, "embedding_size": 6, "hidden_size": 8, "heads": 2},
}


def weight(tensor: Any) -> Array:
    return np.asarray(tensor.detach().double().numpy())


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.exp(x) - 1)


def softmax(x: Array) -> Array:
    return np.exp(x) / np.exp(x).sum()


def dense(layer: nn.Linear, x: Array) -> Array:
    """W x + b."""
    product = x @ weight(layer.weight).T
    return product if layer.bias is None else product + weight(layer.bias)


def lstm(gates: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def lstm_gates(cell: Any, x: Array, h: Array) -> Array:
    of = {name.removesuffix("_l0"): weight(value) for name, value in cell.named_parameters()}
    return of["weight_ih"] @ x + of["bias_ih"] + of["weight_hh"] @ h + of["bias_hh"]


def gru(cell: Any, x: Array, h: Array) -> Array:
    of = {name.removesuffix("_l0"): weight(value) for name, value in cell.named_parameters()}
    given, own = (
        np.split(of["weight_ih"] @ x + of["bias_ih"], 3),
        np.split(of["weight_hh"] @ h + of["bias_hh"], 3),
    )
    r, u = sigmoid(given[0] + own[0]), sigmoid(given[1] + own[1])
    n = np.tanh(given[2] + r * own[2])
    return (1 - u) * n + u * h


def scores(attention: Any, v: Array, q: Array) -> Array:
    return dense(attention.score, np.tanh(dense(attention.key, v) + dense(attention.query, q)))[:, 0]


def look(attention: Any, v: Array, q: Array) -> tuple[Array, Array]:
    alpha = softmax(scores(attention, v, q))
    return alpha @ v, alpha


def first(decoder: Any, v: Array) -> tuple[Array, Array]:
    h, c = np.split(np.tanh(dense(decoder.initial.dense, v.mean(axis=0))), 2)
    return h, c


def words_out(output: Any, y: Array) -> Array:
    """The output layer, tied or not."""
    matrix = weight(output._embedding[0].weight if output.weight is None else output.weight)
    y = y if isinstance(output.project, nn.Identity) else dense(output.project, y)
    return matrix @ y + weight(output.bias)


def show_tell(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    x = dense(d.image, a)
    norm = d.norm
    x = (x - weight(norm.running_mean)) / np.sqrt(weight(norm.running_var) + norm.eps)
    x = x * weight(norm.weight) + weight(norm.bias)
    zero = np.zeros(d.lstm.hidden_size)
    h, c = lstm(lstm_gates(d.lstm, x, zero), zero)
    for w in WORDS:
        h, c = lstm(lstm_gates(d.lstm, weight(d.embedding.weight)[w], h), c)
        yield dense(d.output, h), None


def inject_lstm(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    h = c = elu(dense(d.initial, elu(dense(d.bottleneck, a))))
    for w in WORDS:
        h, c = lstm(lstm_gates(d.lstm, weight(d.embedding.weight)[w], h), c)
        yield dense(d.output, elu(dense(d.narrow, h))), None


def attend_gru_additive(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    v = np.maximum(0, dense(d.cell, a))
    h = np.tanh(dense(d.initial, v.mean(axis=0)))
    for w in WORDS:
        m, alpha = look(d.attention, v, h)
        x = np.concatenate([sigmoid(dense(d.gate, h)) * m, weight(d.embedding.weight)[w]])
        h = gru(d.gru, x, h)
        yield dense(d.output, dense(d.dense, h)), alpha


def attend_gru_dot(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    v = np.maximum(0, dense(d.cell, a))
    h = np.zeros(d.size)
    for w in WORDS:
        h = gru(d.gru, weight(d.embedding.weight)[w], h)
        alpha = softmax(v @ h)
        y = h + alpha @ v
        y = (y - y.mean()) / np.sqrt(y.var() + d.norm.eps) * weight(d.norm.weight) + weight(d.norm.bias)
        yield dense(d.output, y), alpha


def top_down_lstm(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    v = np.maximum(0, dense(d.cell, a))
    h1 = c1 = h2 = c2 = np.zeros(d.sizes[0])
    for w in WORDS:
        x = np.concatenate([h2, v.mean(axis=0), weight(d.embedding.weight)[w]])
        h1, c1 = lstm(lstm_gates(d.looking, x, h1), c1)
        m, alpha = look(d.attention, v, h1)
        h2, c2 = lstm(lstm_gates(d.writing, np.concatenate([m, h1]), h2), c2)
        yield words_out(d.output, h2), alpha


def adaptive_lstm(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    v = np.maximum(0, dense(d.cell, a))
    g = np.maximum(0, dense(d.whole, a.mean(axis=0)))
    h, c = first(d, v)
    for w in WORDS:
        given = (
            dense(d.from_words, weight(d.embedding.weight)[w])
            + dense(d.from_whole, g)
            + dense(d.from_state, h)
        )
        gates, gate = given[: 4 * len(h)], given[4 * len(h) :]
        h, c = lstm(gates, c)
        s = sigmoid(gate) * np.tanh(c)
        m, alpha = look(d.attention, v, h)
        e = scores(d.attention, v, h)
        own = dense(d.attention.score, np.tanh(dense(d.sentinel, s) + dense(d.attention.query, h)))[0]
        beta = np.exp(own) / (np.exp(own) + np.exp(e).sum())
        yield words_out(d.output, h + (1 - beta) * m + beta * s), alpha


def multi_head_lstm(d: Any, a: Array) -> Iterator[tuple[Array, Array | None]]:
    v = np.maximum(0, dense(d.cell, a))
    h, c = first(d, v)
    for w in WORDS:
        parts, looks = [], []
        heads = d.attention.heads
        q, k, y = dense(d.attention.query, h), dense(d.attention.key, v), dense(d.attention.value, v)
        for qj, kj, yj in zip(np.split(q, heads), np.split(k, heads, axis=1), np.split(y, heads, axis=1)):
            alpha = softmax(kj @ qj / np.sqrt(len(h) / heads))
            parts.append(alpha @ yj)
            looks.append(alpha)
        m = dense(d.attention.output, np.concatenate(parts))
        gates = dense(d.from_words, weight(d.embedding.weight)[w]) + dense(
            d.from_seen, np.concatenate([m, h])
        )
        h, c = lstm(gates, c)
        yield words_out(d.output, h), np.mean(looks, axis=0)


FORMULAS = {
    "show-tell": show_tell,
    "inject-lstm": inject_lstm,
    "attend-gru-additive": attend_gru_additive,
    "attend-gru-dot": attend_gru_dot,
    "top-down-lstm": top_down_lstm,
    "adaptive-lstm": adaptive_lstm,
    "multi-head-lstm": multi_head_lstm,
}


def steps(decoder: Decoder, features: torch.Tensor) -> Iterator[tuple[Array, Array | None]]:
    """Logits and attention of the decoder itself, word after word."""
    memory = decoder.project(features)
    state = decoder.start(memory)
    for word in WORDS:
        outputs, state, attention = decoder.step(torch.tensor([word]), state, memory)
        yield weight(decoder.logits(outputs)[0]), None if attention is None else weight(attention[0])


@pytest.mark.parametrize("kind", list_decoders())
def test_a_decoder_computes_its_formulas(kind: str) -> None:
    torch.manual_seed(0)
    needs = DECODERS[kind][1].needs
    decoder = create_decoder(kind, OPTIONS[kind], features=needs, channels=CHANNELS, vocab_size=VOCABULARY)
    for parameter in decoder.parameters():
        nn.init.normal_(
            parameter, std=0.5
        )  # biases and scales, too: at zero and one they would hide mistakes
    for name, buffer in decoder.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    decoder.eval()
    features = torch.randn(1, *([CELLS] if needs == "grid" else []), CHANNELS)
    with torch.no_grad():
        found = list(steps(decoder, features))
        expected = list(FORMULAS[kind](decoder, weight(features[0])))
    assert len({tuple(logits.round(3)) for logits, _ in expected}) == len(WORDS)
    for (logits, attention), (wanted, alpha) in zip(found, expected, strict=True):
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
        assert (attention is None) == (alpha is None)
        if alpha is not None:
            np.testing.assert_allclose(attention, alpha, rtol=1e-4, atol=1e-5)
