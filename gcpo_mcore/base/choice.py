"""Choices: typed records of which the config picks one by name, each with the methods of its kind.

    class Filter(Choice, kind="filter"): ...              a kind: its methods
    class Keep(Filter, option="keep"): ...                an option of it: settings, and those methods

A key of that kind is annotated with it (`filter: Filter`); its `name` in the yaml picks the class. Another distribution
adds an option with an entry point in the group of the kind (`gcpo_mcore.filter`), named as the option.

What is chosen by name without a record of its own is in a registry (registry.py).
"""

from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.base.registry import external


class Choice(Config):
    """Base of all kinds. Where the yaml files of a kind are in configs/`section`/KIND/, the kind sets `section`."""

    section: ClassVar[str] = ""
    kind: ClassVar[str]
    options: ClassVar[dict[str, type["Choice"]]]
    name: str

    def __init_subclass__(cls, kind: str | None = None, option: str | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if kind is not None:
            cls.kind, cls.options = kind, {}
        if option is not None:
            cls.options[option] = cls

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A kind takes any of its options, an option itself."""
        if "options" in vars(cls):
            return core_schema.no_info_after_validator_function(cls._choose, core_schema.any_schema())
        return handler(source)

    @classmethod
    def _choose(cls, value: Any) -> "Choice":
        """The option that `value['name']` names, made of `value` (an instance passes through)."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            key = f"{cls.section}.{cls.kind}".lstrip(".")
            way = f"a part is chosen with a slash: {cls.section}/{cls.kind}={value}"
            raise UserError(f"{key}={value}: {way if cls.section else 'write {name: ...}, and its settings'}")
        return cls._option(str(value.get("name"))).model_validate(value)

    @classmethod
    def _option(cls, name: str) -> type["Choice"]:
        if name in cls.options:
            return cls.options[name]
        elsewhere = external(cls.kind)
        if name not in elsewhere:
            known = sorted(cls.options.keys() | elsewhere.keys())
            raise UserError(f"unknown {cls.kind} '{name}'{nearest(name, known)}; known: {', '.join(known)}")
        found = elsewhere[name].load()
        if not (isinstance(found, type) and issubclass(found, cls)):
            raise UserError(f"entry point gcpo_mcore.{cls.kind}: '{name}' is no {cls.__name__}")
        return found
