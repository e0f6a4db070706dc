"""What every engine's configuration has. Each engine adds its own; defaults: configs/rollout/*.yaml."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gcpo_mcore.config.part import Config


class Sampling(Config):
    """How tokens are drawn. temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole."""

    temperature: NonNegativeFloat
    top_p: float = Field(gt=0, le=1)
    top_k: NonNegativeInt
    max_response_tokens: PositiveInt


class RolloutConfig(Config):
    """The engine and its sampling in training. An engine's `Config` extends it.

    stop_token_ids: besides the tokenizer's end token.
    max_staleness: updates' worth of steps that a sample's weights may lag behind; 0 samples and trains in turn.
    """

    engine: str
    sampling: Sampling
    stop_token_ids: list[NonNegativeInt]
    max_staleness: NonNegativeInt
