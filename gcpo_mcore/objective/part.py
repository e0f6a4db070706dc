"""Parts: the independent, typed pieces that an algorithm is made of.

A part is a choice (gcpo_mcore/base/choice.py): its knobs are read from configs/algorithm/KIND/NAME.yaml, and it has
the method of its kind. Its `name` in the yaml picks the class among those registered for the kind; nothing else in the
code asks for a part by name.
"""

from typing import ClassVar, Protocol

from gcpo_mcore.base.choice import Choice


class Chosen(Protocol):
    """What may be asked of any other part."""

    @property
    def name(self) -> str: ...


class ChosenGolden(Chosen, Protocol):
    """What may be asked of golden-answer injection."""

    fits_guide: ClassVar[bool]


class ChosenAdvantage(Chosen, Protocol):
    """What may be asked of the advantage."""

    by_token: ClassVar[bool]


class ChosenImportance(Chosen, Protocol):
    """What may be asked of the importance ratio."""

    level: ClassVar[str]


class ChosenSurrogate(Chosen, Protocol):
    """What may be asked of the surrogate."""

    uses_ratio: ClassVar[bool]
    uses_clip_range: ClassVar[bool]
    by_token: ClassVar[bool]
    compares_samples: ClassVar[bool]


class Composition(Protocol):
    """The parts of an algorithm, as far as one of them may ask about the others."""

    @property
    def golden(self) -> ChosenGolden: ...

    @property
    def guide(self) -> Chosen: ...

    @property
    def filter(self) -> Chosen: ...

    @property
    def advantage(self) -> ChosenAdvantage: ...

    @property
    def importance(self) -> ChosenImportance: ...

    @property
    def surrogate(self) -> ChosenSurrogate: ...

    @property
    def kl(self) -> Chosen: ...

    @property
    def reduction(self) -> Chosen: ...

    @property
    def mismatch(self) -> Chosen: ...


class Part(Choice):
    """Base of all kinds. A kind subclasses it once (`class Golden(Part, kind="golden")`), its options the kind."""

    section: ClassVar[str] = "algorithm"

    def fits(self, algorithm: Composition) -> None:
        """UserError, with the reason, if this part makes no sense beside the algorithm's other parts."""
