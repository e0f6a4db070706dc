"""Names -> classes or functions: what a user can add without a fork and the config names with one word.

A built-in is a module of that name in the package of its kind (`rewards/exact_match.py` is the
reward `exact_match`): nothing to list anywhere. Another distribution adds one with an entry point
in the group of its kind (`gcpo_mcore.rewards`). Either way it is the one that carries the
decorator: `@rewards.register`.

What is chosen together with settings of its own is a choice (choice.py).
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from gcpo_mcore.base.errors import UserError, nearest

Made = TypeVar("Made", bound=Callable[..., Any])


def external(kind: str) -> Mapping[str, EntryPoint]:
    """The entry points of other distributions in the group gcpo_mcore.`kind`, by name."""
    return {point.name: point for point in entry_points(group=f"gcpo_mcore.{kind}")}


class Registry:
    """The named classes of one kind.

    `kind` is the word used in messages ('reward'). The built-ins are the modules of `package`, or `modules`: name ->
    module. The entry-point group is `gcpo_mcore.{kind}s`.
    """

    def __init__(self, kind: str, package: str = "", modules: Mapping[str, str] | None = None):
        self.kind, self.package, self.modules = kind, package, modules
        self._by_module: dict[str, Callable[..., Any]] = {}

    def register(self, made: Made) -> Made:
        """Decorator: makes the class or function `made` the one that its module stands for."""
        self._by_module[made.__module__] = made
        return made

    def names(self) -> list[str]:
        """Every name that there is, sorted."""
        return sorted(self._built_in().keys() | self._external().keys())

    def check(self, name: str) -> None:
        """UserError, with the nearest known name, if there is nothing called `name`. Imports nothing of it."""
        known = self.names()
        if name not in known:
            raise UserError(f"unknown {self.kind} '{name}'{nearest(name, known)}; known: {', '.join(known)}")

    def get(self, name: str) -> Any:
        """The class or function called `name`. UserError as `check`."""
        self.check(name)
        found = self.find(name)
        if found is None:
            raise UserError(f"{self._built_in()[name]} has nothing decorated with @{self.kind}s.register")
        return found

    def find(self, name: str) -> Any:
        """The class or function called `name`; None if there is none, or only a module without one."""
        elsewhere = self._external()
        if name in elsewhere:
            return elsewhere[name].load()
        module = self._built_in().get(name)
        if module is None:
            return None
        importlib.import_module(module)
        return self._by_module.get(module)

    def _built_in(self) -> Mapping[str, str]:
        if self.modules is not None:
            return self.modules
        package = importlib.import_module(self.package)
        names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
        return {name: f"{self.package}.{name}" for name in names}

    def _external(self) -> Mapping[str, EntryPoint]:
        return external(f"{self.kind}s")


algorithms = Registry("algorithm", "gcpo_mcore.algorithms")
rewards = Registry("reward", "gcpo_mcore.rewards")
trackers = Registry("tracker", "gcpo_mcore.monitor.trackers")
transports = Registry("transport", "gcpo_mcore.rollout.sglang.transports")
engines = Registry(
    "engine", modules={"embedded": "gcpo_mcore.rollout.embedded", "sglang": "gcpo_mcore.rollout.sglang.engine"}
)
