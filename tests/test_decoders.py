"""One contract for every registered decoder, and the facts that set the classics apart."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from showtell.decoders import CaptionBatch, Decoder, create_decoder, list_decoders
from showtell.decoders.attention import AdditiveAttention, DotAttention
from showtell.decoders.base import select
from showtell.decoders.registry import DECODERS
from showtell.errors import ConfigError

VOCAB, CHANNELS, CELLS, IMAGES = 23, 12, 6, 3
LENGTHS = [7, 5, 5, 3, 1]
OWNERS = [0, 1, 2, 0, 1]


FORMS: list[tuple[str, dict[str, object]]] = [
    *((kind, {}) for kind in list_decoders()),
    ("top-down-lstm", {"tied": True}),
    ("top-down-lstm", {"tied": True, "embedding_size": 24}),
    ("adaptive-lstm", {"initial_state": "mean"}),
    ("adaptive-lstm", {"tied": True}),
    ("adaptive-lstm", {"tied": True, "embedding_size": 24}),
    ("adaptive-lstm", {"size": 24, "attention_size": 7, "embedding_size": 10}),
    ("multi-head-lstm", {"initial_state": "zero"}),
    ("multi-head-lstm", {"heads": 1}),
    ("multi-head-lstm", {"tied": True}),
    ("multi-head-lstm", {"tied": True, "embedding_size": 24, "hidden_size": 48, "heads": 3}),
    ("attend-gru-additive", {"initial_state": "mean"}),
    ("attend-gru-additive", {"gate": True}),
    ("attend-gru-additive", {"initial_state": "mean", "gate": True}),
]


@pytest.fixture(params=FORMS, ids=lambda form: "-".join((form[0], *form[1])))
def decoder(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(0)
    kind, options = request.param
    needs = DECODERS[kind][1].needs
    return create_decoder(kind, options, features=needs, channels=CHANNELS, vocab_size=VOCAB).eval()


def make_features(decoder: Decoder, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (IMAGES, CELLS, CHANNELS) if decoder.needs == "grid" else (IMAGES, CHANNELS)
    return torch.randn(shape, generator=generator)


def make_batch(padding: int = 0, pad_id: int = 0) -> CaptionBatch:
    generator = torch.Generator().manual_seed(2)
    steps = max(LENGTHS) + padding
    inputs = torch.full((len(LENGTHS), steps), pad_id)
    targets = torch.full((len(LENGTHS), steps), pad_id)
    for row, length in enumerate(LENGTHS):
        inputs[row, :length] = torch.randint(1, VOCAB, (length,), generator=generator)
        targets[row, :length] = torch.randint(1, VOCAB, (length,), generator=generator)
    return CaptionBatch(inputs, targets, LENGTHS, torch.tensor(OWNERS))


def test_sequence_path_gives_the_logits_of_the_step(decoder: Decoder) -> None:
    batch = make_batch()
    memory = select(decoder.project(make_features(decoder)), batch.owners)
    with torch.no_grad():
        outputs, looks = decoder.run(batch, memory)
        step_outputs, step_looks = decoder.run_stepwise(batch, memory)
    whole, stepwise = decoder.logits(outputs), decoder.logits(step_outputs)
    assert whole.shape == (sum(LENGTHS), VOCAB)
    torch.testing.assert_close(whole, stepwise, atol=1e-5, rtol=1e-5)
    assert (looks is not None) is (step_looks is not None) is decoder.attends
    if looks is not None:
        assert looks.shape == (sum(LENGTHS), CELLS)
        torch.testing.assert_close(looks, step_looks, atol=1e-5, rtol=1e-5)


def test_the_gate_and_the_first_state_of_the_additive_decoder_matter() -> None:
    features, found = torch.rand(IMAGES, CELLS, CHANNELS), []
    for options in ({}, {"initial_state": "mean"}, {"gate": True}):
        torch.manual_seed(0)
        decoder = create_decoder(
            "attend-gru-additive", options, features="grid", channels=CHANNELS, vocab_size=VOCAB
        ).eval()
        memory = decoder.project(features)
        (start,) = decoder.start(memory)
        assert bool(start.abs().sum() > 0) is ("initial_state" in options)
        before = torch.full_like(start, 0.5)
        found.append(decoder.step(torch.ones(IMAGES, dtype=torch.int64), (before,), memory)[0])
    with pytest.raises(ConfigError, match=r"decoder\.initial_state must be one of mean, zero"):
        create_decoder(
            "attend-gru-additive", {"initial_state": "men"}, features="grid", channels=4, vocab_size=9
        )
    assert not torch.allclose(found[0], found[2])


def test_each_caption_alone_gives_the_logits_it_has_in_the_batch(decoder: Decoder) -> None:
    batch, features = make_batch(), make_features(decoder)
    with torch.no_grad():
        together = decoder(features, batch).logits
        rows = batch.pack(torch.arange(len(LENGTHS)).unsqueeze(1).expand(-1, max(LENGTHS)))
        for row, length in enumerate(LENGTHS):
            alone = CaptionBatch(
                batch.inputs[row : row + 1, :length],
                batch.targets[row : row + 1, :length],
                [length],
                torch.tensor([0]),
            )
            logits = decoder(features[OWNERS[row] : OWNERS[row] + 1], alone).logits
            torch.testing.assert_close(logits, together[rows == row], atol=1e-5, rtol=1e-5)


def test_extra_padding_changes_neither_loss_nor_gradient(decoder: Decoder) -> None:
    found = []
    for padding, pad_id in ((0, 0), (9, 0), (4, 7)):
        batch = make_batch(padding, pad_id)
        decoder.zero_grad()
        loss = cross_entropy(
            decoder(make_features(decoder), batch).logits, batch.pack(batch.targets), label_smoothing=0.1
        )
        loss.backward()
        found.append((loss.detach(), {n: p.grad.clone() for n, p in decoder.named_parameters()}))
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0], atol=1e-6, rtol=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][1][name], atol=1e-6, rtol=1e-5)


def test_packed_loss_is_the_mean_over_real_tokens(decoder: Decoder) -> None:
    batch = make_batch(padding=3)
    with torch.no_grad():
        logits = decoder(make_features(decoder), batch).logits
    by_hand = []
    offset = 0
    for step in range(max(LENGTHS)):
        for row, length in enumerate(LENGTHS):
            if step < length:
                by_hand.append(-torch.log_softmax(logits[offset], 0)[batch.targets[row, step]])
                offset += 1
    torch.testing.assert_close(cross_entropy(logits, batch.pack(batch.targets)), torch.stack(by_hand).mean())


def test_every_parameter_gets_a_gradient_and_the_image_matters(decoder: Decoder) -> None:
    batch = make_batch()
    features = make_features(decoder).requires_grad_()
    cross_entropy(decoder(features, batch).logits, batch.pack(batch.targets)).backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    without = [
        name
        for name, parameter in decoder.named_parameters()
        # Softmax ignores what is added to every score, so this bias has no gradient by mathematics.
        if name != "attention.score.bias" and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert not without


def test_attention_is_a_distribution_over_cells(decoder: Decoder) -> None:
    memory = decoder.project(make_features(decoder))
    with torch.no_grad():
        outputs, state, weights = decoder.step(torch.tensor([1, 1, 1]), decoder.start(memory), memory)
    assert outputs.ndim == 2
    assert all(len(part) == IMAGES for part in state)
    assert (weights is not None) == decoder.attends
    if weights is not None:
        assert weights.shape == (IMAGES, CELLS)
        torch.testing.assert_close(weights.sum(1), torch.ones(IMAGES))
        assert (weights >= 0).all()


def test_rows_of_an_image_share_its_memory(decoder: Decoder) -> None:
    memory = decoder.project(make_features(decoder))
    owners = torch.arange(IMAGES).repeat_interleave(4)
    tokens = torch.arange(IMAGES * 4) % VOCAB
    with torch.no_grad():
        start = decoder.start(memory)
        # A state that differs from row to row.
        _, state, _ = decoder.step(tokens.flip(0), select(start, owners), select(memory, owners))
        shared = decoder.step(tokens, state, memory)
        alone = decoder.step(tokens, state, select(memory, owners))
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-5)


def test_additive_attention_is_bahdanaus_formula() -> None:
    torch.manual_seed(0)
    attention = AdditiveAttention(4, 5, 6)
    features, query = torch.randn(2, 3, 4), torch.randn(2, 5)
    context, weights = attention(query, features, attention.project(features))
    for row in range(2):
        scores = torch.stack(
            [
                attention.score.weight[0]
                @ torch.tanh(
                    attention.key.weight @ features[row, cell]
                    + attention.key.bias
                    + attention.query.weight @ query[row]
                    + attention.query.bias
                )
                for cell in range(3)
            ]
        )
        torch.testing.assert_close(weights[row], torch.softmax(scores, 0))
        torch.testing.assert_close(context[row], torch.softmax(scores, 0) @ features[row])


def test_dot_attention_is_luongs_formula() -> None:
    features, query = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    context, weights = DotAttention()(query, features)
    expected = torch.softmax(torch.einsum("rsc,rkc->rsk", query, features), 2)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(context, torch.einsum("rsk,rkc->rsc", expected, features))


def test_unknown_decoder_and_key_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'attend-gru-dot'"):
        create_decoder("attend-gru-dott", {}, features="grid", channels=4, vocab_size=9)
    with pytest.raises(ConfigError, match=r"decoder has no key 'hiden_size'. Did you mean 'hidden_size'"):
        create_decoder("show-tell", {"hiden_size": 3}, features="pooled", channels=4, vocab_size=9)
    with pytest.raises(ConfigError, match=r"decoder.hidden_size must be of type int. Received: '3' \(str\)"):
        create_decoder("show-tell", {"hidden_size": "3"}, features="pooled", channels=4, vocab_size=9)
    with pytest.raises(
        ConfigError, match=r"decoder.dropout must be at least 0.0 and at most 0.95. Received: 2.0"
    ):
        create_decoder("show-tell", {"dropout": 2}, features="pooled", channels=4, vocab_size=9)


def test_attention_on_pooled_features_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'needs encoder.output = "grid", but the encoder gives "pooled"'):
        create_decoder("attend-gru-additive", {}, features="pooled", channels=4, vocab_size=9)
    with pytest.raises(ConfigError, match="show-tell, inject-lstm"):
        create_decoder("attend-gru-dot", {}, features="pooled", channels=4, vocab_size=9)
