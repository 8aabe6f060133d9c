"""Multi-head attention: Vaswani's formula, what one head is; and the LSTM that reads what the heads found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Linear

from showtell.decoders import create_decoder
from showtell.decoders.attention import DotAttention, MultiHeadAttention
from showtell.decoders.multi_head_lstm import MultiHeadLstmDecoder
from showtell.errors import ConfigError

VOCAB, CHANNELS, CELLS, IMAGES, SIZE = 11, 6, 4, 3, 12


def make_decoder(**options: Any) -> MultiHeadLstmDecoder:
    torch.manual_seed(0)
    sizes = {"feature_size": 10, "embedding_size": 7, "hidden_size": SIZE, "heads": 3}
    decoder = create_decoder(
        "multi-head-lstm", {**sizes, **options}, features="grid", channels=CHANNELS, vocab_size=VOCAB
    ).eval()
    assert isinstance(decoder, MultiHeadLstmDecoder)
    return decoder


def set_identity(*layers: Linear) -> None:
    for layer in layers:
        torch.nn.init.eye_(layer.weight)


@torch.no_grad()
def test_one_head_with_plain_projections_is_scaled_dot_attention() -> None:
    attention = MultiHeadAttention(SIZE, SIZE, SIZE, heads=1)
    set_identity(attention.key, attention.value, attention.query, attention.output)
    features, query = torch.randn(2, 5, SIZE), torch.randn(2 * 3, SIZE)
    context, weights = attention(query, *attention.project(features))
    expected, looks = DotAttention()(query.view(2, 3, SIZE) / SIZE**0.5, features)
    torch.testing.assert_close(context, expected.flatten(0, 1))
    torch.testing.assert_close(weights, looks.flatten(0, 1))


@torch.no_grad()
def test_several_heads_are_vaswanis_formula() -> None:
    torch.manual_seed(0)
    attention, heads = MultiHeadAttention(10, 9, SIZE, heads=3), 3
    part = SIZE // heads
    features, query = torch.randn(2, 5, 10), torch.randn(2, 9)
    context, weights = attention(query, *attention.project(features))
    for row in range(2):
        found, looks = [], []
        for head in range(heads):
            own = slice(head * part, (head + 1) * part)
            asked = attention.query.weight[own] @ query[row]
            keys = features[row] @ attention.key.weight[own].T
            looks.append(torch.softmax(keys @ asked / part**0.5, 0))
            found.append(looks[-1] @ (features[row] @ attention.value.weight[own].T))
        torch.testing.assert_close(context[row], attention.output.weight @ torch.cat(found))
        torch.testing.assert_close(weights[row], torch.stack(looks).mean(0))
    assert not torch.allclose(looks[0], looks[1])


@torch.no_grad()
def test_the_heads_look_before_the_word_and_the_lstm_reads_what_they_found() -> None:
    decoder = make_decoder(initial_state="zero")
    memory, tokens = decoder.project(torch.randn(IMAGES, CELLS, CHANNELS)), torch.tensor([1, 5, 2])
    before = torch.randn(IMAGES, SIZE), torch.randn(IMAGES, SIZE)
    outputs, (hidden, cell), weights = decoder.step(tokens, before, memory)
    context, looks = decoder.attention(before[0], memory[0], memory[1])
    lstm = torch.nn.LSTMCell(7 + SIZE, SIZE)
    lstm.weight_ih.copy_(torch.cat([decoder.from_words.weight, decoder.from_seen.weight[:, :SIZE]], dim=1))
    lstm.weight_hh.copy_(decoder.from_seen.weight[:, SIZE:])
    lstm.bias_ih.copy_(decoder.from_words.bias)
    lstm.bias_hh.zero_()
    expected = lstm(torch.cat([decoder.embedding.weight[tokens], context], dim=1), before)
    torch.testing.assert_close((hidden, cell), tuple(expected))
    torch.testing.assert_close(outputs, hidden)
    torch.testing.assert_close(weights, looks)


@torch.no_grad()
def test_the_first_state_is_zero_or_from_the_mean_of_the_cells() -> None:
    features = torch.randn(IMAGES, CELLS, CHANNELS)
    for kind in ("zero", "mean"):
        decoder = make_decoder(initial_state=kind)
        hidden, cell = decoder.start(decoder.project(features))
        turned = decoder.start(decoder.project(features.flip(1)))
        torch.testing.assert_close((hidden, cell), turned)  # no cell is special
        assert bool(hidden.abs().sum() > 0) is bool(cell.abs().sum() > 0) is (kind == "mean")
        assert not torch.equal(hidden, cell) or kind == "zero"


def test_heads_that_do_not_divide_the_state() -> None:
    with pytest.raises(
        ConfigError,
        match=r"decoder\.heads must divide decoder\.hidden_size\. Received: 5 heads for a hidden_size of 12\.",
    ):
        make_decoder(heads=5)
    with pytest.raises(ConfigError, match=r"decoder\.heads must be at least 1"):
        make_decoder(heads=0)
    with pytest.raises(ConfigError, match=r"decoder\.initial_state must be one of mean, zero"):
        make_decoder(initial_state="means")
