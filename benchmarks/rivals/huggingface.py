"""What users of `transformers` would pick: BLIP-base and ViT-GPT2, from their configurations, with random weights.

Speed and memory do not depend on the weights. The sizes are the published ones (Li et al. 2022, section 4.1: ViT-B/16
and BERT-base with cross attention, images of 384 pixels for captioning; ViT-B/16 at 224 pixels and GPT-2 small with
cross attention). Captions are greedy, one image at a time, and forced to a given number of tokens.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from PIL import Image

from benchmarks.rivals.operators import import_torchvision
from benchmarks.sides import Round

import_torchvision()

# Of no type that a checker knows: it is an extra, and what its types say changes from release to release.
transformers: Any = importlib.import_module("transformers")
_GPT2_END = 50256


def build_blip(layers: int = 12, hidden: int = 768) -> tuple[Any, Any]:
    """Returns BLIP-base for captioning and its image processor; smaller ones are for tests."""
    heads = max(1, hidden // 64)
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    text = {
        **sizes,
        "vocab_size": 30524,
        "encoder_hidden_size": hidden,
        "max_position_embeddings": 512,
        "bos_token_id": 30522,
        "eos_token_id": 2,
        "sep_token_id": 102,
        "pad_token_id": 0,
    }
    vision = {**sizes, "image_size": 384, "patch_size": 16}
    config = transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=256)
    model = transformers.BlipForConditionalGeneration(config).eval()
    processor = transformers.BlipImageProcessor(size={"height": 384, "width": 384})
    return model, processor


def build_vit_gpt2(layers: int = 12, hidden: int = 768) -> tuple[Any, Any]:
    """Returns ViT-GPT2 and its image processor; smaller ones are for tests."""
    heads = max(1, hidden // 64)
    vision = transformers.ViTConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=224,
        patch_size=16,
    )
    text = transformers.GPT2Config(
        vocab_size=50257,
        n_positions=1024,
        n_embd=hidden,
        n_layer=layers,
        n_head=heads,
        add_cross_attention=True,
        is_decoder=True,
        pad_token_id=_GPT2_END,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = _GPT2_END
    model = transformers.VisionEncoderDecoderModel(config=config).eval()
    model.generation_config.decoder_start_token_id = _GPT2_END
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = _GPT2_END
    return model, transformers.ViTImageProcessor(size={"height": 224, "width": 224})


BUILDERS = {"blip-base": build_blip, "vit-gpt2": build_vit_gpt2}


def caption(name: str, photographs: list[str], *, steps: int, **sizes: int) -> Round:
    """A side: writes captions of exactly `steps` tokens, one image after the other."""
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    model, processor = BUILDERS[name](**sizes)

    @torch.inference_mode()
    def one_round() -> dict[str, Any]:
        lengths = []
        for path in photographs:
            pixels = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
            tokens = model.generate(
                pixel_values=pixels, min_new_tokens=steps, max_new_tokens=steps, do_sample=False, num_beams=1
            )
            lengths.append(int(tokens.shape[1]) - 1)  # without the start token
        return {"units": len(photographs), "tokens": lengths}

    return one_round
