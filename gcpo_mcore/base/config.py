"""The base of every typed piece of configuration, and two marks of its keys: that a continuation may change one, and
that nobody writes down what it is."""

import re
from collections.abc import Callable, Collection, Iterator
from operator import methodcaller
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

T = TypeVar("T")


class _Mark:
    """What `Free` leaves in a field's metadata."""


Free = Annotated[T, _Mark]
"""The type of a key that may change between a run and its continuation: `steps: Free[PositiveInt | None]`, all of it.

Free is what does not change what is computed, only for how long, how fast, where, or what is written down. A section
that is free (`monitor: Free[MonitorConfig]`) is so as a whole. An engine's or a reward's own Config has the mark too.
"""


class _SecretMark:
    """What `Secret` leaves in a field's metadata."""


Secret = Annotated[T, _SecretMark]
"""The type of a key whose texts are written nowhere, in a mapping those of all names: `environment: Secret[dict[str,
str]]`. The names are, and numbers. With `Free` it is Free[Secret[...]]."""

LARGEST_FLOAT32 = float.fromhex("0x1.fffffep+127")
LARGEST_INT64 = 2**63 - 1
LONGEST_S = 31_536_000
HIDDEN = "***"  # in the place of a secret
_WITH_PASSWORD = re.compile(r"(\w+://)[^/@\s]+@")


class Config(BaseModel):
    """A frozen record read from yaml: no unknown key, no default (those live in configs/*.yaml)."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """TypeError for a mark that would be lost, inside of a type."""
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if _has_mark(field.annotation):
                raise TypeError(f"{cls.__name__}.{name}: Free has to be around the whole type, as in Free[int | None]")

    # A number that is none, or above all, is no setting of anything.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    @field_validator("*", mode="after")
    @classmethod
    def _machines_can_use_it(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses numbers that arithmetic or a timer would stumble over later."""
        if isinstance(value, float) and abs(value) > LARGEST_FLOAT32:
            raise ValueError("it is larger than float32 can hold")
        if isinstance(value, int) and abs(value) > LARGEST_INT64:
            raise ValueError("it is larger than 64 bits can hold")
        if isinstance(value, int | float) and (info.field_name or "").endswith("_s") and value > LONGEST_S:
            raise ValueError(f"it is longer than a year, {LONGEST_S:,} s")
        return value

    def free_keys(self) -> Iterator[str]:
        """The dotted keys in this record that are marked `Free`; of a free section only its own."""
        return _marked(self, _Mark, methodcaller("free_keys"))

    def secret_keys(self) -> Iterator[str]:
        """The dotted keys in this record that are marked `Secret`."""
        return _marked(self, _SecretMark, methodcaller("secret_keys"))

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


def _marked(record: Config, mark: type, keys: Callable[[Config], Iterator[str]]) -> Iterator[str]:
    """The dotted keys in a record with that mark; of a marked section only its own. `keys`: those of a record inside,
    which may know of more than its fields say."""
    for name, field in type(record).model_fields.items():
        if mark in field.metadata:
            yield name
        else:
            yield from _keys_inside(getattr(record, name), name, keys)


def _keys_inside(value: Any, place: str, keys: Callable[[Config], Iterator[str]]) -> Iterator[str]:
    if isinstance(value, Config):
        yield from (f"{place}.{key}" for key in keys(value))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _keys_inside(item, f"{place}.{key}", keys)


def hidden(node: Any, secret: Collection[str], place: str = "") -> Any:
    """`node`, a plain record, without the texts of the keys in `secret`, and without passwords in addresses."""
    if isinstance(node, dict):
        return {key: hidden(value, secret, f"{place}.{key}".lstrip(".")) for key, value in node.items()}
    if isinstance(node, list):
        return [hidden(value, secret, place) for value in node]
    if not isinstance(node, str):
        return node
    return HIDDEN if is_below(place, secret) else without_passwords(node)


def without_passwords(text: str) -> str:
    """`text` with its addresses (http://me:PASSWORD@host) as they may be written down."""
    return _WITH_PASSWORD.sub(rf"\1{HIDDEN}@", text)


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
