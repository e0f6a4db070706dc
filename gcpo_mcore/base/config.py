"""The base of every typed piece of configuration."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen record read from yaml: no unknown key, no default (those live in configs/*.yaml)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, arbitrary_types_allowed=True)
