"""A checkpoint's weights as a Hugging Face folder, checked against the checkpoint before it gets its name."""

import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from gcpo_mcore import platform
from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.architecture import read_architecture
from gcpo_mcore.actor.checkpoint import load_weights
from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.actor.hf_export import write_hf
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import build_model, start_parallel
from gcpo_mcore.errors import UserError

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of logits: bfloat16 has 8 bits of mantissa
ONE_PROCESS = ParallelConfig(tensor=1, pipeline=1, expert=1, sequence=False, distributed_optimizer=False, threads=None)


def checkpoint_to_hf(checkpoint: Path, model_files: Path, dtype: str, out: Path) -> float:
    """Writes `out` and returns the largest logit difference to the checkpoint on 64 random tokens.

    model_files: config and tokenizer of the run's model. UserError, and no `out`, if the difference is above
    `TOLERANCE`. Runs in a process group of one.
    """
    arch = read_architecture(str(model_files))
    layout = check_layout(ONE_PROCESS, arch)
    start_parallel(layout, seed=0)
    model = build_model(arch, ONE_PROCESS, layout, getattr(torch, dtype)).eval()
    load_weights(model, checkpoint)
    unchecked = out.with_name(f"unchecked_{out.name}")
    try:
        write_hf(hf_mapping.export(model, arch), model_files, unchecked, is_writer=dist.get_rank() == 0)
        difference = logit_difference(model, unchecked, arch.vocabulary, dtype)
        if not difference <= TOLERANCE[dtype]:
            raise UserError(
                f"{checkpoint}: the export's logits differ by {difference:.1e}, more than {TOLERANCE[dtype]}"
            )
        unchecked.rename(out)
    finally:
        shutil.rmtree(unchecked, ignore_errors=True)
    return difference


@torch.no_grad()
def logit_difference(model, hf_folder: Path, vocabulary: int, dtype: str) -> float:
    """Largest absolute difference between the logits of a Megatron model and of the folder, by transformers."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(hf_folder, dtype=getattr(torch, dtype)).to(platform.device()).eval()
    tokens = torch.randint(vocabulary, (4, 16), generator=torch.Generator().manual_seed(0)).to(platform.device())
    positions = torch.arange(16, device=tokens.device).expand(4, 16)
    with platform.megatron():
        mine = model(tokens, positions, attention_mask=None)
    return float((mine[..., :vocabulary].float() - hf(tokens).logits.float()).abs().max())
