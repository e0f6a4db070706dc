"""What every engine's configuration has. Each engine adds its own; defaults: configs/rollout/*.yaml."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gcpo_mcore.base.config import Config


class Sampling(Config):
    """How tokens are drawn. temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole."""

    temperature: NonNegativeFloat
    top_p: float = Field(gt=0, le=1)
    top_k: NonNegativeInt
    max_response_tokens: PositiveInt


@dataclass(frozen=True)
class EngineMemory:
    """Bytes of an engine on each of the trainer's GPUs.

    working      beside weights and cache, while it samples: a prefill's activations or the logits of a draw
    on_the_way   of a sync's weights, beside theirs and its own
    stays        what it never gives back
    rests        it gives back weights and cache while the run trains, and its cache for a sync
    keeps_cache  if it does not rest, whether the cache stays too
    """

    weights: int = 0
    cache: int = 0
    working: int = 0
    on_the_way: int = 0
    stays: int = 0
    rests: bool = False
    keeps_cache: bool = False


class RolloutConfig(Config):
    """The engine and its sampling in training. An engine's `Config` extends it.

    stop_token_ids: besides the end tokens of the tokenizer, generation_config.json and config.json.
    oversampling: so many times the prompts of a step are begun; the first to be whole make the step, the rest is
        dropped and its prompts come again.
    max_staleness: how many steps ahead samples are made while the run trains, and so how many steps old the weights
        of a sample's first token may be (older, if oversampling left it unfinished); 0 samples and trains in turn.
    """

    engine: str
    sampling: Sampling
    stop_token_ids: list[NonNegativeInt]
    max_staleness: NonNegativeInt
    oversampling: float = Field(ge=1)

    @property
    def sends_adapter(self) -> bool:
        """Whether the engine is given an adapter alone, and not the weights that it makes of its base."""
        return False

    def memory(self, arch: Any, max_prompt_tokens: int, dtype_bytes: int) -> EngineMemory:
        """What the engine takes of a GPU for a model (actor.architecture.Architecture): nothing, if it is elsewhere."""
        return EngineMemory()

    def _cache_bytes(self, arch: Any, max_prompt_tokens: int, sequences: int, dtype_bytes: int) -> int:
        """Of keys and values of so many sequences of full length."""
        length = max_prompt_tokens + self.sampling.max_response_tokens
        return sequences * length * 2 * arch.layers * arch.kv_heads * arch.head_dim * dtype_bytes
