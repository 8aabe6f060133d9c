"""The decoders by name. A new decoder is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from showtell.config import build
from showtell.decoders.adaptive_lstm import AdaptiveLstmDecoder, AdaptiveLstmOptions
from showtell.decoders.attend_gru_additive import AttendGruAdditiveDecoder, AttendGruAdditiveOptions
from showtell.decoders.attend_gru_dot import AttendGruDotDecoder, AttendGruDotOptions
from showtell.decoders.base import Decoder
from showtell.decoders.inject_lstm import InjectLstmDecoder, InjectLstmOptions
from showtell.decoders.multi_head_lstm import MultiHeadLstmDecoder, MultiHeadLstmOptions
from showtell.decoders.show_tell import ShowTellDecoder, ShowTellOptions
from showtell.decoders.top_down_lstm import TopDownLstmDecoder, TopDownLstmOptions
from showtell.errors import ConfigError, did_you_mean

DECODERS: dict[str, tuple[type[Any], type[Decoder]]] = {
    "show-tell": (ShowTellOptions, ShowTellDecoder),
    "inject-lstm": (InjectLstmOptions, InjectLstmDecoder),
    "attend-gru-additive": (AttendGruAdditiveOptions, AttendGruAdditiveDecoder),
    "attend-gru-dot": (AttendGruDotOptions, AttendGruDotDecoder),
    "top-down-lstm": (TopDownLstmOptions, TopDownLstmDecoder),
    "adaptive-lstm": (AdaptiveLstmOptions, AdaptiveLstmDecoder),
    "multi-head-lstm": (MultiHeadLstmOptions, MultiHeadLstmDecoder),
}


def list_decoders() -> list[str]:
    """Returns the names of all decoders."""
    return list(DECODERS)


def check_decoder(kind: str, options: Mapping[str, Any], *, features: str) -> Any:
    """Checks what a recipe says of its decoder, before anything large is built.

    Args:
        kind: a name from `list_decoders`.
        options: the decoder's keys, as in a recipe's [decoder] table without `kind`.
        features: what the encoder gives, "grid" or "pooled".

    Returns:
        The decoder's own options.

    Raises:
        ConfigError: an unknown decoder or key, a wrong type, or a decoder that needs other features.
    """
    if kind not in DECODERS:
        raise ConfigError(
            f"There is no decoder {kind!r}.{did_you_mean(kind, DECODERS)} Decoders: {', '.join(DECODERS)}."
        )
    options_type, decoder_type = DECODERS[kind]
    built = build(options_type, options, "decoder")
    if decoder_type.needs != features:
        fitting = ", ".join(name for name, (_, other) in DECODERS.items() if other.needs == features)
        raise ConfigError(
            f'The decoder {kind!r} needs encoder.output = "{decoder_type.needs}", but the encoder gives '
            f'"{features}" features. Set encoder.output = "{decoder_type.needs}", or choose a decoder for '
            f"{features} features: {fitting}."
        )
    return built


def create_decoder(
    kind: str, options: Mapping[str, Any], *, features: str, channels: int, vocab_size: int
) -> Decoder:
    """Builds a decoder with random weights.

    Args:
        kind: a name from `list_decoders`.
        options: the decoder's keys, as in a recipe's [decoder] table without `kind`.
        features: what the encoder gives, "grid" or "pooled".
        channels: channels of the encoder's features.
        vocab_size: width of the logits, special tokens included.

    Raises:
        ConfigError: as `check_decoder`.
    """
    built = check_decoder(kind, options, features=features)
    build_with: Callable[..., Decoder] = DECODERS[kind][1]  # every decoder takes its own kind of options
    return build_with(built, channels=channels, vocab_size=vocab_size)
