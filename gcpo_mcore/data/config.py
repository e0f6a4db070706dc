"""The typed `data` group. What each key means for a user is written beside it in configs/data/carry.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from gcpo_mcore.base.config import Config, Free
from gcpo_mcore.data.curriculum import Curriculum


class TrainSource(Config):
    """A file, a folder of files or hf:NAME?split=train with training prompts.

    `weight` is its share of a batch relative to the other sources; 0 leaves it out. `max_rows` reads only the first
    that many, and of these only the first `max_golden_rows` keep their golden answer; both may be left out (null: all).

    golden_share  the share of the source's draws that are rows with a golden answer (null: as they come)
    row_weight    the column with the number of times that a row comes in an epoch, 0 or more (null: once)
    """

    path: str
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_golden_rows: Annotated[int, Field(ge=0)] | None = None
    max_rows: Annotated[int, Field(gt=0)] | None = None
    golden_share: Annotated[float, Field(ge=0, le=1)] | None = None
    row_weight: str | None = None


class EvalSource(Config):
    """Evaluation prompts, from a path as above; `max_rows` reads only the first that many (null: all)."""

    path: str
    max_rows: Annotated[int, Field(gt=0)] | None


class Keys(Config):
    """The names of the columns; null: where the shape of the rows has it (gcpo_mcore/data/shapes.py)."""

    prompt: str | None
    answer: str | None
    golden_answer: str | None


class CacheConfig(Config):
    """Where prepared prompts are kept (null: in the user's cache), and the size of a source from which on they are."""

    folder: str | None
    above_mib: NonNegativeFloat


class DataConfig(Config):
    """Where the prompts come from and how a row becomes token ids."""

    name: str
    train: Annotated[dict[str, TrainSource], Field(min_length=1)]
    eval: Free[dict[str, EvalSource]]
    curriculum: Curriculum
    cache: Free[CacheConfig]
    keys: Keys
    system_prompt: str | None
    prompt_suffix: str
    chat_template: bool
    chat_template_kwargs: dict[str, Any]
    max_prompt_tokens: Annotated[int, Field(gt=0)]
    overlong_prompts: Literal["error", "drop"]
    golden_checked_rows: Free[NonNegativeInt | None]
