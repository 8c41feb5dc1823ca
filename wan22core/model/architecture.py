"""The exact shapes of ``ti2v-5b`` and of ``tiny``, the same classes at a size for two CPU cores.

Source of the figures: the configuration files of ``Wan-AI/Wan2.2-TI2V-5B-Diffusers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wan22core.specs import Architecture

Config = Mapping[str, Any]

HUB_ID = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
"""The repository whose layout and shapes ``ti2v-5b`` reproduces."""

MODEL_INDEX: Config = {
    "_class_name": "WanPipeline",
    "boundary_ratio": None,
    "expand_timesteps": True,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
"""The pipeline's ``model_index.json``: which library and class each component is of."""

_LATENTS_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
_LATENTS_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip

_TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "in_channels": 48,
    "out_channels": 48,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 14336,
    "num_layers": 30,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "added_kv_proj_dim": None,
    "image_dim": None,
    "pos_embed_seq_len": None,
    "rope_max_seq_len": 1024,
}
_TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
    "tie_word_embeddings": False,
}
_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "is_residual": True,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": list(_LATENTS_MEAN),
    "latents_std": list(_LATENTS_STD),
}
_SCHEDULER: dict[str, Any] = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "num_train_timesteps": 1000,
    "flow_shift": 5.0,
}


@dataclass(frozen=True)
class ModelShapes:
    """Constructor arguments of every component, and the parameters that they must add up to."""

    transformer: Config
    text_encoder: Config
    vae: Config
    scheduler: Config
    parameters: Mapping[str, int]
    """Parameters of each component."""
    shard_bytes: int
    """Largest safetensors shard of a made checkpoint."""


SHAPES: dict[Architecture, ModelShapes] = {
    Architecture.TI2V_5B: ModelShapes(
        transformer=_TRANSFORMER,
        text_encoder=_TEXT_ENCODER,
        vae=_VAE,
        scheduler=_SCHEDULER,
        parameters={"transformer": 4_999_787_712, "text_encoder": 5_680_910_336, "vae": 704_688_668},
        shard_bytes=5_000_000_000,
    ),
    Architecture.TINY: ModelShapes(
        transformer=_TRANSFORMER
        | {"num_attention_heads": 4, "attention_head_dim": 64, "text_dim": 256, "ffn_dim": 896, "num_layers": 30},
        text_encoder=_TEXT_ENCODER
        | {"vocab_size": 512, "d_model": 256, "d_kv": 32, "d_ff": 1792, "num_layers": 26, "num_heads": 8},
        vae=_VAE | {"base_dim": 32, "decoder_base_dim": 48},
        scheduler=_SCHEDULER,
        parameters={"transformer": 30_436_544, "text_encoder": 42_749_696, "vae": 26_011_596},
        shard_bytes=24_000_000,
    ),
}


# What decides the shape of a component's tensors. The other settings may differ from the hub's in a fine-tune.
_SHAPE_KEYS: dict[str, tuple[str, ...]] = {
    "transformer": tuple(key for key, value in _TRANSFORMER.items() if value is not None),
    "text_encoder": (
        "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
        "feed_forward_proj",
    ),
    "vae": (
        "base_dim", "decoder_base_dim", "z_dim", "dim_mult", "num_res_blocks", "attn_scales", "temperal_downsample",
        "in_channels", "out_channels", "patch_size", "is_residual",
    ),
}  # fmt: skip


def identify(configs: Mapping[str, Config]) -> Architecture | None:
    """Which known architecture the ``config.json`` of each component describe together, None for another one.

    ``configs`` holds those of ``transformer``, ``text_encoder`` and ``vae``.
    """
    for architecture, shapes in SHAPES.items():
        expected = {"transformer": shapes.transformer, "text_encoder": shapes.text_encoder, "vae": shapes.vae}
        if all(
            _plain(configs[component].get(key)) == _plain(expected[component][key])
            for component, keys in _SHAPE_KEYS.items()
            for key in keys
        ):
            return architecture
    return None


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
