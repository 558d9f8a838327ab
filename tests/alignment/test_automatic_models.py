"""Symmetries of models that nobody here wrote: tiny, randomly initialised, from the transformers package."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from p2pmarket.alignment import find_symmetry

try:
    transformers = importlib.import_module("transformers")
except ModuleNotFoundError as reason:  # `make test` installs it; one that is there and broken is a failure
    pytest.skip(f"the package {reason.name} is not installed: pip install '.[test]'", allow_module_level=True)

WORDS = {
    "vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32,
    "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = {**WORDS, "num_key_value_heads": 2, "pad_token_id": 0}
PATCHES = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
GPT2 = {"vocab_size": 64, "n_embd": 24, "n_layer": 1, "n_head": 4, "n_positions": 32}
SEQUENCES = {
    "vocab_size": 64, "d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip


def _words() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.arange(18).reshape(2, 9) * 7 % 64}


def _pairs() -> dict[str, torch.Tensor]:
    return {**_words(), "decoder_input_ids": torch.arange(10).reshape(2, 5) * 11 % 64}


def _image(size: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))}


def _sound(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


Row = tuple[str, str, dict[str, Any], Callable[[], dict[str, torch.Tensor]], float, int]
"""Class of the model, of its configuration, its arguments, inputs, coverage at least, number of classes."""

# Attention: heads, keys, values (rotary embedding: no keys; groups: queries of a group), feed-forward; and the stream.
TINY: list[Row] = [
    ("BertForMaskedLM", "BertConfig", WORDS, _words, 0.99, 5),
    ("GPT2LMHeadModel", "GPT2Config", GPT2, _words, 0.99, 5),
    ("LlamaForCausalLM", "LlamaConfig", GROUPED, _words, 0.99, 5),
    ("Phi3ForCausalLM", "Phi3Config", GROUPED, _words, 0.99, 5),
    ("T5ForConditionalGeneration", "T5Config",
     {"vocab_size": 64, "d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 1, "num_heads": 4,
      "decoder_start_token_id": 0}, _pairs, 0.8, 11),
    ("ViTForImageClassification", "ViTConfig", PATCHES, lambda: _image(32), 0.99, 5),
    ("ConvNextForImageClassification", "ConvNextConfig", STAGES, lambda: _image(64), 0.99, 9),
    ("SwinForImageClassification", "SwinConfig",
     {"image_size": 32, "patch_size": 2, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
     lambda: _image(32), 0.99, 18),
    ("ResNetForImageClassification", "ResNetConfig", {**STAGES, "embedding_size": 8}, lambda: _image(64), 0.99, 14),
]  # fmt: skip

MORE: list[Row] = [
    ("MistralForCausalLM", "MistralConfig", GROUPED, _words, 0.99, 5),
    ("Qwen2ForCausalLM", "Qwen2Config", GROUPED, _words, 0.99, 5),
    ("MixtralForCausalLM", "MixtralConfig", {**GROUPED, "num_local_experts": 4}, _words, 0.99, 5),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", WORDS, _words, 0.99, 5),
    ("MambaForCausalLM", "MambaConfig",
     {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 4}, _words, 0.99, 7),
    ("BartForConditionalGeneration", "BartConfig", {**SEQUENCES, "max_position_embeddings": 32}, _pairs, 0.7, 11),
    ("WhisperForConditionalGeneration", "WhisperConfig",
     {**SEQUENCES, "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 20},
     lambda: {"input_features": _sound(2, 8, 40), "decoder_input_ids": _pairs()["decoder_input_ids"]}, 0.7, 13),
    ("MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.35, "image_size": 64},
     lambda: _image(64), 0.99, 25),
    ("SegformerForImageClassification", "SegformerConfig",
     {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 4]},
     lambda: _image(64), 0.99, 22),
    ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config",
     {**{name: size for name, size in PATCHES.items() if name not in ("image_size", "patch_size")},
      "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
      "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
     lambda: {"input_values": _sound(2, 400)}, 0.99, 9),
]  # fmt: skip


def check(row: Row) -> None:
    """The self-test is inside: what is found is a symmetry. Here: that enough is found."""
    name, config, arguments, inputs, coverage, classes = row
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own
        model: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**arguments))
        symmetry = find_symmetry(model, (), kwargs=inputs())
    assert symmetry.method == "graph"
    assert not [pinned for pinned in symmetry.pinned if pinned.op in ("self-test", "layout")]
    assert symmetry.coverage >= coverage
    assert len(symmetry.spec.classes) == classes


@pytest.mark.parametrize("row", TINY, ids=lambda row: row[0])
def test_it_understands_models_nobody_here_wrote(row: Row) -> None:
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", MORE, ids=lambda row: row[0])
def test_it_understands_more_of_them(row: Row) -> None:
    check(row)
