"""A tiny random model of every family that the actor carries, made by transformers. Also run by test_families.py:

    python families.py OUT CASE...     alone or under torchrun; a case is NAME:MODEL[@CHECKPOINT][:tensor=2:...]

Every case loads MODEL into Megatron at that layout (with a checkpoint: its weights instead), writes the log-probs of
fixed tokens to OUT/NAME.pt and the weights, exported, to OUT/NAME/.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

TINY = {
    "vocab_size": 131,  # odd: the tensor-parallel vocabulary is padded
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "tie_word_embeddings": False}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2Config", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": False, "head_dim": 32}),
    "llama3": ("LlamaConfig", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama-linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "smollm2": ("LlamaConfig", {"tie_word_embeddings": True, "rope_theta": 1e5}),
    "mistral": ("MistralConfig", {"tie_word_embeddings": False, "head_dim": 32, "sliding_window": None}),
    "qwen3-moe": ("Qwen3MoeConfig", {**EXPERTS, "norm_topk_prob": True, "head_dim": 32}),
    "qwen3-moe-plain": ("Qwen3MoeConfig", {**EXPERTS, "norm_topk_prob": False}),
}


def make_model(name: str, folder: Path, **changes) -> Path:
    """The family's model in `folder`; every weight is far from its initial value (norms from 1, biases from 0)."""
    import transformers

    torch.manual_seed(0)
    config_class, extra = FAMILIES[name]
    config = getattr(transformers, config_class)(**{**TINY, **extra, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def token_rows() -> list[list[int]]:
    """Eight rows of 24 to 96 tokens; the first two of a row are its prompt."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, TINY["vocab_size"], n).tolist() for n in (24, 33, 50, 64, 70, 81, 90, 96)]


def main(out: str, *cases: str) -> None:
    from megatron.core import parallel_state

    from gcpo_mcore.actor.actor import Actor
    from gcpo_mcore.actor.checkpoint import load_weights
    from gcpo_mcore.actor.config import ALL_WEIGHTS, ModelConfig
    from gcpo_mcore.actor.layout import check_layout
    from gcpo_mcore.actor.model import start_parallel
    from gcpo_mcore.hf.architecture import read_architecture
    from gcpo_mcore.hf.folder import write_hf
    from gcpo_mcore.run.setup import process_group
    from gcpo_mcore.samples import Group, Prompt, Sample
    from tests.actor.worker import OPTIMIZER, deal, gather, parallel_of

    groups = []
    for number, row in enumerate(token_rows()):
        sample = Sample(0, row[2:], "", np.zeros(len(row) - 2, np.float32), home=(0, number))
        groups.append(Group(Prompt("p", "x", "", row[:2], ""), [sample]))
    with process_group(threads=1, deadline_s=900):
        for case in cases:
            name, model, *options = case.split(":")
            model, _, checkpoint = model.partition("@")
            parallel = parallel_of(dict(option.split("=") for option in options))
            arch = read_architecture(model)
            layout = check_layout(parallel, arch)
            start_parallel(layout, seed=0)
            actor = Actor(
                ModelConfig(path=model, dtype="float32", adapter=ALL_WEIGHTS), arch, parallel, layout, OPTIMIZER,
                temperature=1.0, sequences_per_microbatch=2, tokens_per_microbatch=None,
            )  # fmt: skip
            if checkpoint:
                for parameter in actor.stage().parameters():
                    parameter.data.zero_()
                load_weights(actor.stage().chunks, Path(checkpoint))
            batch = deal(actor, groups)
            logp = gather(batch, actor.score(batch))
            if dist.get_rank() == 0:
                torch.save(logp, f"{out}/{name}.pt")
            if dist.get_rank() == 0:
                write_hf(actor.export(), Path(model), Path(out) / name)
            for _ in actor.export() if dist.get_rank() else ():
                pass  # drawn by every rank in step
            dist.barrier()
            parallel_state.destroy_model_parallel()


if __name__ == "__main__":
    main(*sys.argv[1:])
