"""What of an adapter can be refused before anything is built."""

from gcpo_mcore.actor.config import LoraAdapter
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.peft import PeftFolder


def check_adapter(config: LoraAdapter, arch: Architecture, tensor: int) -> None:
    """UserError, naming the key, for targets that the model does not have, a layout of `tensor` ranks that cuts a key's
    rows, and a folder to start from that is another adapter."""
    known = (*lora.ATTENTION, *((lora.EXPERTS,) if arch.experts else lora.MLP))
    for target in config.targets if isinstance(config.targets, list) else []:
        if target not in known:
            raise UserError(
                f"model.adapter.targets: {target} is not in a {arch.family} model; known: {', '.join(known)}"
            )
    if arch.kv_heads % tensor:
        raise UserError(
            f"parallel.tensor={tensor}: with model/adapter=lora it has to divide the model's kv_heads ({arch.kv_heads})"
        )
    if config.start is not None:
        open_start(config)


def open_start(config: LoraAdapter) -> PeftFolder:
    """The PEFT folder that `config.start` names. UserError, naming the key, if its adapter is not that of `config`."""
    assert config.start is not None, "the caller asks first"
    folder = PeftFolder(config.start)
    for key, mine, theirs in (
        ("rank", config.rank, folder.rank),
        ("alpha", config.alpha, folder.alpha),
        ("rslora", config.rslora, folder.is_rank_stabilised),
    ):
        if mine != theirs:
            raise UserError(f"model.adapter.{key}={mine}: the adapter in {config.start} has {theirs}")
    return folder
