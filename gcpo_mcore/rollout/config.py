"""The rollout's part of the configuration. Defaults and comments: configs/rollout/*.yaml."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gcpo_mcore.config.part import Config


class Sampling(Config):
    """How tokens are drawn. temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole."""

    temperature: NonNegativeFloat
    top_p: float = Field(gt=0, le=1)
    top_k: NonNegativeInt
    max_response_tokens: PositiveInt


class RolloutConfig(Config):
    """The engine and its sampling in training.

    sequences_per_batch: how many responses the embedded engine decodes side by side on a rank.
    stop_token_ids: besides the tokenizer's end token.
    """

    engine: str
    sampling: Sampling
    sequences_per_batch: PositiveInt
    stop_token_ids: list[NonNegativeInt]
