"""Names -> classes (of rewards also functions), for everything that a user can add without a fork.

A built-in is a module of that name in the package of its kind (`rewards/exact_match.py` is the
reward `exact_match`): nothing to list anywhere. Another distribution adds one with an entry point
in the group of its kind (`gcpo_mcore.rewards`). Either way it is the one that carries the
decorator: `@rewards.register`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from gcpo_mcore.base.errors import UserError, nearest


class Registry:
    """The named classes of one kind.

    `kind` is the word used in messages ('reward'). The built-ins are the modules of `package`, or `modules`: name ->
    module. The entry-point group is `gcpo_mcore.{kind}s`.
    """

    def __init__(self, kind: str, package: str = "", modules: Mapping[str, str] | None = None):
        self.kind, self.package, self.modules = kind, package, modules
        self._by_module: dict[str, Callable] = {}

    def register(self, made: Callable) -> Callable:
        """Decorator: makes the class or function `made` the one that its module stands for."""
        self._by_module[made.__module__] = made
        return made

    def names(self) -> list[str]:
        """Every name that `get` knows, sorted."""
        return sorted(self._built_in().keys() | self._entry_points().keys())

    def check(self, name: str) -> None:
        """UserError, with the nearest known name, if there is no class called `name`. Imports nothing of it."""
        known = self.names()
        if name not in known:
            raise UserError(f"unknown {self.kind} '{name}'{nearest(name, known)}; known: {', '.join(known)}")

    def get(self, name: str) -> Callable:
        """The class or function called `name`. UserError as `check`."""
        self.check(name)
        external = self._entry_points()
        if name in external:
            return external[name].load()
        module = self._built_in()[name]
        importlib.import_module(module)
        if module not in self._by_module:
            raise UserError(f"{module} has nothing decorated with @{self.kind}s.register")
        return self._by_module[module]

    def _built_in(self) -> dict[str, str]:
        if self.modules is not None:
            return dict(self.modules)
        package = importlib.import_module(self.package)
        names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
        return {name: f"{self.package}.{name}" for name in names}

    def _entry_points(self) -> dict:
        return {e.name: e for e in entry_points(group=f"gcpo_mcore.{self.kind}s")}


algorithms = Registry("algorithm", "gcpo_mcore.algorithms")
rewards = Registry("reward", "gcpo_mcore.rewards")
engines = Registry(
    "engine", modules={"embedded": "gcpo_mcore.rollout.embedded", "sglang": "gcpo_mcore.rollout.sglang.engine"}
)
