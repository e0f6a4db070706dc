"""Fixtures that several test folders share: tiny models, a tiny task."""

from pathlib import Path

import pytest

from tests.launching import run

TINY = {
    "vocab_size": 131,  # odd: the tensor-parallel vocabulary is padded
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "qwen2-tied": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": False, "head_dim": 32}),
    "llama": ("LlamaConfig", {"tie_word_embeddings": False, "rope_theta": 5e4}),
}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """A random model of each family, made by transformers; its weights are far from their initial values."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("models")
    made = {}
    for name, (config_class, extra) in FAMILIES.items():
        torch.manual_seed(0)
        config = getattr(transformers, config_class)(**TINY, **extra)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
        made[name] = folder / name
    return made


@pytest.fixture(scope="session")
def carry(tmp_path_factory) -> Path:
    """The quick-start's data with the untrained model (in place of the starter): enough to run every phase."""
    folder = tmp_path_factory.mktemp("carry")
    run("tools/prepare.py", "--out", str(folder), "--skip-starter")
    return folder
