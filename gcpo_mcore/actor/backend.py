"""Which layers the actor is built of: megatron-core's own, or Transformer Engine's where it is installed."""

import importlib.util
from typing import Literal

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import Architecture

Backend = Literal["local", "te"]


def choose_backend(wanted: Literal["local", "te", "auto"], arch: Architecture, has_adapter: bool = False) -> Backend:
    """The backend for `actor.backend`; 'auto' means Transformer Engine's if it can be. UserError if 'te' cannot be."""
    if wanted == "local":
        return "local"
    problem = _problem(arch, has_adapter)
    if wanted == "te" and problem:
        raise UserError(f"actor.backend=te: {problem}; actor.backend=local needs nothing")
    return "local" if problem else "te"


def _problem(arch: Architecture, has_adapter: bool) -> str | None:
    if has_adapter:
        # Its linear layers hold the norms before them: an adapter would see what is not normalised.
        return "an adapter is carried by megatron-core's own layers only"
    if importlib.util.find_spec("transformer_engine") is None:
        return "transformer-engine is not installed"
    if not platform.HAS_CUDA:
        return "transformer-engine needs CUDA"
    if arch.experts:
        # With experts megatron-core's two backends write checkpoints with different names.
        return "a model with experts is carried by megatron-core's own layers only"
    return None
