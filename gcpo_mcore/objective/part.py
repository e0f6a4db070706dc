"""Parts: the independent, typed pieces that an algorithm is made of.

A part is a frozen record (its knobs, read from configs/algorithm/KIND/NAME.yaml) with the method of its
kind. Its `name` in the yaml picks the class among those registered for the kind; nothing else in the code
asks for a part by name.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import PlainValidator

from gcpo_mcore.config.part import Config
from gcpo_mcore.errors import UserError, nearest

if TYPE_CHECKING:
    from gcpo_mcore.objective.algorithm import Algorithm


class Part(Config):
    """Base of all kinds. A kind subclasses it once (`class Golden(Part)`), its options subclass the kind."""

    options: ClassVar[dict[str, type["Part"]]]
    name: str

    def __init_subclass__(cls, option: str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if Part in cls.__bases__:
            cls.options = {}
        elif option is not None:
            cls.options[option] = cls

    @classmethod
    def build(cls, value: Any) -> "Part":
        """An instance of the option that `value['name']` names (an instance passes through)."""
        if isinstance(value, cls):
            return value
        kind = cls.__name__.lower()
        if not isinstance(value, dict):
            raise UserError(f"algorithm.{kind}={value}: a part is chosen with a slash: algorithm/{kind}={value}")
        name = value.get("name")
        if name not in cls.options:
            known = sorted(cls.options)
            raise UserError(f"unknown {kind} '{name}'{nearest(str(name), known)}; known: {', '.join(known)}")
        return cls.options[name].model_validate(value)

    def fits(self, algorithm: "Algorithm") -> None:
        """UserError, with the reason, if this part makes no sense beside the algorithm's other parts."""


def of_kind(kind: type[Part]):
    """The pydantic field type that holds any option of `kind`."""
    return Annotated[kind, PlainValidator(kind.build)]
