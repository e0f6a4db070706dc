"""The folders that Hydra's groups are read from: ours, and those that a command line adds."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.places import CONFIGS

KEY = "hydra.searchpath"


def config_folders(overrides: Sequence[str]) -> list[Path]:
    """CONFIGS, then the folders of `hydra.searchpath=[file://DIR,pkg://PACKAGE]` among `overrides`, in their order.

    Of two files of one name, the first folder's counts. UserError for a folder or a package that is not there.
    """
    added = [o for o in overrides if o.lstrip("+").startswith(f"{KEY}=")]
    places = [place for o in OverridesParser.create().parse_overrides(added) for place in _listed(o.value())]
    return [CONFIGS, *(folder for place in places for folder in _folders(str(place)))]


def find_config(group: str, name: str, folders: Sequence[Path]) -> Path | None:
    """`group`/`name`.yaml in the first of the folders that has it."""
    return next((file for f in folders if (file := f / group / f"{name}.yaml").is_file()), None)


def known_choices(group: str, folders: Sequence[Path]) -> list[str]:
    """The names that `group=` takes, sorted."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _folders(place: str) -> list[Path]:
    scheme, _, rest = place.rpartition("://")
    if scheme == "pkg":
        found = _package_folders(rest)
        if not found:
            raise UserError(f"{KEY}: {place}: there is no such package")
        return found
    if not Path(rest).is_dir():
        raise UserError(f"{KEY}: {place}: there is no such folder")
    return [Path(rest)]


def _package_folders(name: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # of a parent
        spec = None
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
