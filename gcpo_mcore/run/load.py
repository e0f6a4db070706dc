"""Reads the configuration: Hydra composes the yaml files and the command line, the schema checks the result.

Every mistake becomes one line that names the key and the nearest known one.
"""

import argparse
import functools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from gcpo_mcore.base import last_words, stop
from gcpo_mcore.base.config import HIDDEN, is_below, without_passwords
from gcpo_mcore.base.errors import EXIT_CODE, Stopped, UserError, lost_peer, nearest
from gcpo_mcore.base.files import problem_of
from gcpo_mcore.base.parent import end_with_torchrun
from gcpo_mcore.base.places import CONFIGS
from gcpo_mcore.base.program import help_page
from gcpo_mcore.base.stop import say_last
from gcpo_mcore.monitor import heartbeat, watchdog
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.search_path import KEY, config_folders, find_config, known_choices

OTHER_RANKS_WAIT_S = 20.0
SECRET = ("rollout.environment", "rollout.arguments")  # marked so in the engine's Config, which a mistake comes before
_SECRET_VALUE = re.compile(r"^([+~]*(?:" + "|".join(map(re.escape, SECRET)) + r")(?:\.[^=]*)?=).*", re.DOTALL)


def load_config(overrides: list[str]) -> RunConfig:
    """The checked configuration for command-line overrides (`algorithm=gcpo seed=1`). UserError if it is wrong."""
    overrides = _names_quoted(overrides)
    with _explained(overrides):
        return parse(_compose(overrides))


def parse(composed: DictConfig) -> RunConfig:
    """A composed config as the typed schema."""
    try:
        plain: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {_one_line(error)}") from None
    try:
        return RunConfig.model_validate(plain)
    except ValidationError as error:
        raise UserError(_first_problem(error, plain)) from None


def shown(overrides: Iterable[str]) -> list[str]:
    """Overrides as they may be written down: without the values of `SECRET` keys, and passwords in addresses."""
    return [without_passwords(_SECRET_VALUE.sub(rf"\1{HIDDEN}", override)) for override in overrides]


def run_tool(task: Callable[[DictConfig], Any], config_name: str = "train") -> None:
    """The main function of a tool with Hydra's command line (`--cfg job`, `--help`, overrides).

    The docstring of the task's module is what `--help` begins with (configs/train.yaml has the rest of the page).

    A UserError is printed as one line, once, and ends every rank with EXIT_CODE; ranks whose collective fails because
    another has ended say so in one line. Ranks end with the torchrun that started them.
    """
    import hydra

    end_with_torchrun()

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own page
    OmegaConf.register_new_resolver("about", lambda: _about(task), replace=True)
    sys.argv[1:] = _names_quoted(sys.argv[1:])
    overrides = _overrides(sys.argv[1:])
    kept: list[Exception] = []

    @functools.wraps(task)  # Hydra names its pages after the module of what it runs
    def guarded(composed: DictConfig) -> None:
        try:
            task(composed)
        except Exception as error:
            if not (isinstance(error, UserError) or lost_peer(error) or problem_of(error)):
                raise
            kept.append(error)  # Hydra would announce it in words of its own

    try:
        with _explained(overrides):
            config_folders(overrides)  # Hydra only warns of a folder that is not there
            hydra.main(config_path=str(CONFIGS), config_name=config_name, version_base="1.3")(guarded)()
        for error in kept:
            raise error
    except UserError as error:
        _end_with(error)
    except Stopped as stopped:
        _end_stopped(stopped)
    except KeyboardInterrupt:
        say_last("SIGINT: ended")
        sys.exit(128 + signal.SIGINT)
    except RuntimeError as error:
        if not (how := lost_peer(error)):
            raise
        _end_lost(how)
    except OSError as error:
        if not (problem := problem_of(error)):
            raise
        _end_with(UserError(problem))


def _end_with(error: UserError) -> NoReturn:
    """Ends this rank with EXIT_CODE and its line; where rank 0 has the same one, with none."""
    rank = int(os.environ.get("RANK", "0"))
    if rank and last_words.heard_from_rank_0(str(error), OTHER_RANKS_WAIT_S):
        _wait_for_torchrun()  # which ends the others when rank 0 exits
    say_last(f"error: {f'rank {rank}: ' if rank else ''}{error}")
    stop.leave()
    last_words.told()
    heartbeat.end()
    sys.exit(EXIT_CODE)


def _end_stopped(stopped: Stopped) -> NoReturn:
    """Ends this rank; where rank 0 stops too, with that one's line alone."""
    rank = int(os.environ.get("RANK", "0"))
    if not rank:
        say_last(str(stopped))
    elif not last_words.heard_from_rank_0(str(stopped), OTHER_RANKS_WAIT_S):
        say_last(f"rank {rank}: {stopped}")
    stop.leave()
    last_words.told()
    heartbeat.end()
    sys.exit(stop.exit_code())


def _end_lost(how: str) -> NoReturn:
    """Ends a rank whose collective failed for another one's sake: names that one, if it has not done so itself."""
    here = heartbeat.present()
    waited = here.waited() if here else f"rank {os.environ['RANK']}"
    is_late = how.startswith("Timed out")
    missing = here and here.missing(is_late)
    if not missing:
        last_words.wait_until_told(OTHER_RANKS_WAIT_S)
        missing = f"another rank has ended ({how})"
    say_last(f"{waited}: {missing}")
    heartbeat.end()
    sys.stdout.flush()
    # Not by the interpreter's end: threads of a gloo group whose collective failed abort that.
    os._exit(watchdog.EXIT_CODE if is_late else 1)


def _wait_for_torchrun() -> None:
    """Sleeps for as long as rank 0 may take; ends this rank when torchrun says so."""
    until = time.monotonic() + OTHER_RANKS_WAIT_S
    while time.monotonic() < until:
        if stop.came():
            sys.exit(EXIT_CODE)
        time.sleep(0.1)


def _overrides(arguments: list[str]) -> list[str]:
    """The overrides of a command line for Hydra; --config-dir is one for its search path."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    given, rest = parser.parse_known_args(arguments)
    added = [f"{KEY}=['file://{given.config_dir}']"] if given.config_dir else []
    return [*added, *(a for a in rest if "=" in a and not a.startswith("-"))]


def _names_quoted(arguments: list[str]) -> list[str]:
    """`arguments`, with Hydra's quotes around a run.name: 20261126_1 and 1e-6 are numbers to it, and é is nothing.

    A name with a sign of Hydra's own grammar in it, ${seed} for one, is left to Hydra.
    """
    return [re.sub(r"^(\+{0,2}run\.name=)([^'\"\\$,(){}\[\]]*)$", r"\1'\2'", argument) for argument in arguments]


def _about(task: Callable) -> str:
    """How a command is called, and what its module says of it: the top of its help page."""
    usage = f"usage: {Path(sys.argv[0]).name} [group=option ...] [key=value ...]"
    return f"{usage}\n\n{help_page(sys.modules[task.__module__].__doc__)}".rstrip()


# --- messages ---------------------------------------------------------------------------------------------------


class _explained:
    """Turns Hydra's errors into a UserError of one line."""

    def __init__(self, overrides: list[str]):
        self.overrides = overrides

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, YAMLError):  # a doubled key, for one
            raise UserError(f"config: {_one_line(error)}") from None
        if isinstance(error, (HydraException, OmegaConfBaseException)):
            raise UserError(self._explain(str(error), error)) from None

    def _explain(self, text: str, error: Exception) -> str:
        if found := re.search(r"Could not (?:find|load) '([^']+)'", text):  # load: one of a list of choices
            group, _, choice = found[1].rpartition("/")
            known = known_choices(group, config_folders(self.overrides))
            return f"{group}={choice}: unknown choice{nearest(choice, known)}; known: {', '.join(known)}"
        if found := re.search(r"Could not override '([^']+)'", text):
            key = found[1]
            if self._may_be_added(key):
                return f"{key}: there is no such entry yet; ++{key}=... adds it"
            return f"unknown key {key}{nearest(key, self._known_keys())}"
        if isinstance(error, OverrideParseException):
            return f"command line: cannot read '{error.override}' ({_one_line(error).split(' See ')[0]})"
        return f"command line: {_one_line(error)}"

    def _may_be_added(self, key: str) -> bool:
        """Whether the command line would do with the key as a new one: of a template's arguments, of reward parts."""
        added = [f"++{each}" if each.startswith(f"{key}=") else each for each in self.overrides]
        try:
            parse(_compose(added))
        except (UserError, HydraException, OmegaConfBaseException):
            return False
        return True

    def _known_keys(self) -> list[str]:
        """Every key of the config, and every group, with the valid choices of this command line."""
        parsed = OverridesParser.create().parse_overrides(self.overrides)
        folders = config_folders(self.overrides)
        choices = [o.input_line for o in parsed if o.input_line and _are_choices(o.key_or_group, o.value(), folders)]
        if added := [f"'file://{folder}'" for folder in folders[1:]]:
            choices.append(f"{KEY}=[{','.join(added)}]")
        return [*_groups(folders), *_keys(OmegaConf.to_container(_compose(choices)))]


def _compose(overrides: list[str]) -> DictConfig:
    config_folders(overrides)  # Hydra only warns of a folder that is not there
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=overrides)


def _groups(folders: list[Path]) -> Iterator[str]:
    for folder in folders:
        for inner in folder.rglob("*"):
            if inner.is_dir() and inner.name != "__pycache__":
                yield str(inner.relative_to(folder))


def _are_choices(group: str, value: Any, folders: list[Path]) -> bool:
    """Whether the value, or every one of a list of them, is a file of the group."""
    names = value if isinstance(value, list) else [value]
    return all(find_config(group, name, folders) for name in names)


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield prefix + str(key)
        yield from _keys(value, f"{prefix}{key}.")


def _first_problem(error: ValidationError, plain: dict) -> str:
    problem = error.errors()[0]
    key = ".".join(str(p) for p in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parent = plain
        for p in problem["loc"][:-1]:
            parent = parent[p]
        place = key.rpartition(".")[0]
        known = [f"{place}.{k}".lstrip(".") for k in parent if k != problem["loc"][-1]]
        return f"unknown key {key}{nearest(key, known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if (
        problem["type"] == "string_type"
        and not is_below(key, SECRET)
        and isinstance(problem["input"], bool | int | float)
    ):
        message += f"; in quotes it is one: \"{key}='{problem['input']}'\""
    given = (
        ""
        if isinstance(problem["input"], dict) or is_below(key, SECRET)
        else f"={without_passwords(str(problem['input']))}"
    )
    return f"{key}{given}: {message[0].lower()}{message[1:]}" if key else message


def _one_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
