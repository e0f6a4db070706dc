"""Parts: the independent, typed pieces that an algorithm is made of.

A part is a choice (gcpo_mcore/base/choice.py): its knobs are read from configs/algorithm/KIND/NAME.yaml, and it has
the method of its kind. Its `name` in the yaml picks the class among those registered for the kind; nothing else in the
code asks for a part by name.
"""

from typing import TYPE_CHECKING, ClassVar

from gcpo_mcore.base.choice import Choice

if TYPE_CHECKING:
    from gcpo_mcore.objective.algorithm import Algorithm


class Part(Choice):
    """Base of all kinds. A kind subclasses it once (`class Golden(Part)`), its options subclass the kind."""

    section: ClassVar[str] = "algorithm"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if Part in cls.__bases__:
            cls.options = {}

    def fits(self, algorithm: "Algorithm") -> None:
        """UserError, with the reason, if this part makes no sense beside the algorithm's other parts."""
