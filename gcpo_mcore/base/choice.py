"""Choices: typed records of which the config picks one by name, each with the methods of its kind.

A kind (`Filter`, `Curriculum`) has an abstract class whose `options` are its registry; a subclass declared with
`option="name"` joins it. The yaml files of the choices are in configs/{section}/{kind}/.
"""

from typing import Annotated, Any, ClassVar, Self

from pydantic import PlainValidator

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.errors import UserError, nearest


class Choice(Config):
    """Base of all kinds. A kind sets `options = {}` and inherits or sets `section`, its place in the config."""

    options: ClassVar[dict[str, type["Choice"]]]
    section: ClassVar[str]
    name: str

    def __init_subclass__(cls, option: str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if option is not None:
            cls.options[option] = cls

    @classmethod
    def build(cls, value: Any) -> Self:
        """An instance of the option that `value['name']` names (an instance passes through)."""
        if isinstance(value, cls):
            return value
        kind = cls.__name__.lower()
        if not isinstance(value, dict):
            place = f"{cls.section}.{kind}={value}"
            raise UserError(f"{place}: a part is chosen with a slash: {cls.section}/{kind}={value}")
        name = value.get("name")
        if name not in cls.options:
            known = sorted(cls.options)
            raise UserError(f"unknown {kind} '{name}'{nearest(str(name), known)}; known: {', '.join(known)}")
        return cls.options[name].model_validate(value)


def of_kind(kind: type[Choice]):
    """The pydantic field type that holds any option of `kind`."""
    return Annotated[kind, PlainValidator(kind.build)]
