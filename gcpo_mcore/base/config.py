"""The base of every typed piece of configuration, and the mark of a key that a continuation may change."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class _Mark:
    """What `Free` leaves in a field's metadata."""


Free = Annotated[T, _Mark]
"""The type of a key that may change between a run and its continuation: `steps: Free[PositiveInt | None]`, all of it.

Free is what does not change what is computed, only for how long, how fast, where, or what is written down. A section
that is free (`monitor: Free[MonitorConfig]`) is so as a whole. An engine's or a reward's own Config has the mark too.
"""


class Config(BaseModel):
    """A frozen record read from yaml: no unknown key, no default (those live in configs/*.yaml)."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """TypeError for a mark that would be lost, inside of a type."""
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if _has_mark(field.annotation):
                raise TypeError(f"{cls.__name__}.{name}: Free has to be around the whole type, as in Free[int | None]")

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, arbitrary_types_allowed=True)

    def free_keys(self) -> Iterator[str]:
        """The dotted keys in this record that are marked `Free`; of a free section only its own."""
        for name, field in type(self).model_fields.items():
            if _Mark in field.metadata:
                yield name
            else:
                yield from _free_inside(getattr(self, name), name)

    def mappings(self) -> Iterator[str]:
        """The dotted keys in this record whose value maps names of the user's to whatever they stand for."""
        for name in type(self).model_fields:
            yield from _mappings_inside(getattr(self, name), name)

    def plain(self) -> dict[str, Any]:
        """The record as yaml has it, with what is in the options that were chosen."""
        return self.model_dump(mode="json", serialize_as_any=True)

    def fixed(self) -> dict[str, Any]:
        """`plain` without the free keys: what makes two records the same work."""
        free = set(self.free_keys())

        def kept(node: Any, place: str) -> Any:
            if not isinstance(node, dict):
                return node
            return {key: kept(value, f"{place}{key}.") for key, value in node.items() if place + key not in free}

        return kept(self.plain(), "")


def _has_mark(annotation: Any) -> bool:
    """Whether `Free` stands anywhere inside a type."""
    return _Mark in getattr(annotation, "__metadata__", ()) or any(map(_has_mark, get_args(annotation)))


def _free_inside(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Config):
        yield from (f"{place}.{key}" for key in value.free_keys())
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _free_inside(item, f"{place}.{key}")


def _mappings_inside(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Config):
        yield from (f"{place}.{key}" for key in value.mappings())
    elif isinstance(value, dict):
        yield place
        for key, item in value.items():
            yield from _mappings_inside(item, f"{place}.{key}")


def is_below(key: str, places: Collection[str]) -> bool:
    """Whether the dotted `key` is one of `places`, or inside one."""
    parts = key.split(".")
    return any(".".join(parts[:length]) in places for length in range(1, len(parts) + 1))


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts; an empty dict and a list are leaves."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flat(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), node
