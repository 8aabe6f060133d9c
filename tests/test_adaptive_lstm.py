"""The LSTM with a visual sentinel: the paper's equations, and what the sentinel does to the words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from showtell.decoders import CaptionBatch, create_decoder
from showtell.decoders.adaptive_lstm import AdaptiveLstmDecoder
from showtell.errors import ConfigError

VOCAB, CHANNELS, CELLS, IMAGES, SIZE = 11, 6, 4, 3, 8
SIZES = {"size": SIZE, "attention_size": 5, "embedding_size": 7}


def make_decoder(**options: Any) -> AdaptiveLstmDecoder:
    torch.manual_seed(0)
    decoder = create_decoder(
        "adaptive-lstm", {**SIZES, **options}, features="grid", channels=CHANNELS, vocab_size=VOCAB
    ).eval()
    assert isinstance(decoder, AdaptiveLstmDecoder)
    return decoder


def make_features() -> torch.Tensor:
    return torch.randn(IMAGES, CELLS, CHANNELS, generator=torch.Generator().manual_seed(1))


def make_state() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(IMAGES, SIZE, generator=generator), torch.randn(IMAGES, SIZE, generator=generator)


def force_sentinel(decoder: AdaptiveLstmDecoder, score: float) -> None:
    """Makes the sentinel's score far above (or below) those of the cells, whatever they are."""
    with torch.no_grad():
        decoder.attention.score.weight.fill_(score)
        decoder.sentinel.bias.fill_(1000.0)
        decoder.attention.key.bias.fill_(-1000.0)


@torch.no_grad()
def test_a_step_is_what_the_paper_writes() -> None:
    decoder, tokens = make_decoder(), torch.tensor([1, 5, 2])
    features, (before, memory_before) = make_features(), make_state()
    memory = decoder.project(features)
    outputs, (hidden, cell), weights = decoder.step(tokens, (before, memory_before), memory)

    # Section 2.4: v_i = relu(W_a a_i), v_g = relu(W_b a_g), x_t = [w_t; v_g]
    seen = torch.relu(features @ decoder.cell.weight.T + decoder.cell.bias)
    whole = torch.relu(features.mean(1) @ decoder.whole.weight.T + decoder.whole.bias)
    read = torch.cat([decoder.embedding.weight[tokens], whole], dim=1)
    reading = torch.cat([decoder.from_words.weight, decoder.from_whole.weight], dim=1)
    lstm = torch.nn.LSTMCell(read.shape[1], SIZE)
    lstm.weight_ih.copy_(reading[: 4 * SIZE])
    lstm.weight_hh.copy_(decoder.from_state.weight[: 4 * SIZE])
    lstm.bias_ih.copy_(decoder.from_whole.bias[: 4 * SIZE])
    lstm.bias_hh.zero_()
    expected_hidden, expected_cell = lstm(read, (before, memory_before))
    torch.testing.assert_close(hidden, expected_hidden)
    torch.testing.assert_close(cell, expected_cell)

    # Equations 9 and 10: the sentinel's gate reads what the LSTM reads, and the state *before* the step.
    asked = read @ reading[4 * SIZE :].T + before @ decoder.from_state.weight[4 * SIZE :].T
    sentinel = torch.sigmoid(asked + decoder.from_whole.bias[4 * SIZE :]) * torch.tanh(cell)
    for row in range(IMAGES):
        # Equations 6, 7 and 12: the state *after* the step asks.
        query = decoder.attention.query(hidden[row])
        scores = [decoder.attention.score(torch.tanh(decoder.attention.key(v) + query)) for v in seen[row]]
        own = decoder.attention.score(torch.tanh(decoder.sentinel(sentinel[row]) + query))
        alpha = torch.softmax(torch.cat(scores), 0)
        beta = torch.softmax(torch.cat([*scores, own]), 0)[-1]
        context = beta * sentinel[row] + (1 - beta) * (alpha @ seen[row])  # equation 11
        torch.testing.assert_close(weights[row], alpha)
        torch.testing.assert_close(outputs[row], context + hidden[row])  # equation 13


@torch.no_grad()
def test_with_a_high_score_the_sentinel_is_the_context() -> None:
    decoder, state = make_decoder(), make_state()
    force_sentinel(decoder, 10.0)
    tokens, found = torch.tensor([1, 5, 2]), []
    for features in (make_features(), make_features().flip(1) * 3):
        cells, keys, from_whole = decoder.project(features)
        from_whole = torch.zeros_like(from_whole)  # the other way by which the picture comes in
        outputs, (hidden, _), weights = decoder.step(tokens, state, (cells, keys, from_whole))
        found.append(outputs - hidden)
        torch.testing.assert_close(weights.sum(1), torch.ones(IMAGES))
    # Whatever the picture shows, the context is the sentinel, which is made of the LSTM's memory alone.
    torch.testing.assert_close(found[0], found[1])
    assert found[0].abs().max() < 1  # a sigmoid times a tanh


@torch.no_grad()
def test_with_a_low_score_the_context_is_the_mixture_of_the_cells() -> None:
    decoder, state = make_decoder(), make_state()
    force_sentinel(decoder, -10.0)
    cells, keys, from_whole = decoder.project(make_features())
    outputs, (hidden, _), weights = decoder.step(torch.tensor([1, 5, 2]), state, (cells, keys, from_whole))
    torch.testing.assert_close(outputs - hidden, torch.einsum("rk,rkc->rc", weights, cells))


def test_a_sentinel_that_takes_all_leaves_finite_gradients() -> None:
    """Attention over the cells is normalised by itself, not divided by the share that the sentinel leaves."""
    decoder = make_decoder()
    force_sentinel(decoder, 100.0)
    words = torch.ones(IMAGES, 2, dtype=torch.int64)
    taught = decoder(make_features(), CaptionBatch(words, words, [2] * IMAGES, torch.arange(IMAGES)))
    taught.logits.logsumexp(1).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in decoder.parameters())


def test_what_the_decoder_looked_at_does_not_come_back_to_the_lstm() -> None:
    decoder, state, tokens = make_decoder(), make_state(), torch.tensor([1, 5, 2])
    cells, keys, from_whole = decoder.project(make_features())
    with torch.no_grad():
        first = decoder.step(tokens, state, (cells, keys, from_whole))
        second = decoder.step(tokens, state, (cells.flip(1), keys * 2, from_whole))
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    assert not torch.allclose(first[0], second[0])


@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 4, 1], [3, 3, 2]])
@pytest.mark.parametrize("initial_state", ["zero", "mean"])
def test_all_words_at_once_and_word_by_word_have_the_same_gradients(
    lengths: list[int], initial_state: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(1, VOCAB, (IMAGES, 6), generator=generator)
    batch = CaptionBatch(words, words, lengths, torch.arange(IMAGES))
    decoder = make_decoder(initial_state=initial_state)
    found = []
    for run in (decoder.run, decoder.run_stepwise):
        decoder.zero_grad()
        outputs, weights = run(batch, decoder.project(make_features()))
        (decoder.logits(outputs).square().sum() + weights.square().sum()).backward()
        found.append([parameter.grad.clone() for parameter in decoder.parameters()])
    for at_once, stepwise in zip(*found, strict=True):
        torch.testing.assert_close(at_once, stepwise, atol=1e-4, rtol=1e-4)


def test_steps_of_equally_many_captions_are_attended_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, calls = make_decoder(), []
    attend = decoder._attend
    monkeypatch.setattr(decoder, "_attend", lambda *given: calls.append(len(given[0])) or attend(*given))
    words = torch.ones(IMAGES, 6, dtype=torch.int64)
    batch = CaptionBatch(words, words, [6, 4, 4], torch.arange(IMAGES))
    with torch.no_grad():
        decoder(make_features(), batch)
    assert calls == [3 * 4, 1 * 2]


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"decoder\.attention_size must be at least 1"):
        make_decoder(attention_size=0)
    with pytest.raises(ConfigError, match=r"decoder\.initial_state must be one of mean, zero"):
        make_decoder(initial_state="means")
