"""A grid: command lines of tools/train.py that differ in some factors, the seed among them.

Ad hoc, in Hydra's sweep syntax (`algorithm=gcpo,dapo seed=0,1,2`), or from configs/ablation/NAME.yaml
(`experiment=NAME`), where `variants` name bundles of overrides that belong together: a factor for each set of them.
"""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from pydantic import Field, PositiveInt, ValidationError, model_validator

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.base.program import command
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.load import load_config, shown
from gcpo_mcore.run.name import MAX_BYTES, check_name
from gcpo_mcore.run.search_path import config_folders, find_config, known_choices


class GridConfig(Config):
    """The file configs/ablation/NAME.yaml.

    question   what the grid asks, for the report's head
    budget     what is the same for every cell: 'prompts' or 'samples' per step, as a sentence for the report
    overrides  of every cell
    variants   factor -> name -> its overrides; {} for none. Reports name the cells of 'variant' by the bare name
    sweep      key -> its values, as after 'key=' on the command line; 'seed' belongs here
    prepare    file -> the command (tools/NAME.py or gcpo-NAME) that makes it if missing; {prepared}: a seed's folder
    processes  torchrun processes of a cell; or, by the names of the first factor of `variants`, of each one's cells
    """

    question: str
    budget: str
    overrides: list[str]
    variants: dict[str, dict[str, list[str]]]
    sweep: dict[str, list[str | int | float]] = Field(min_length=1)
    prepare: dict[str, str]
    processes: PositiveInt | dict[str, PositiveInt]

    @model_validator(mode="after")
    def _names(self):
        if double := self.variants.keys() & self.sweep.keys():
            raise ValueError(f"{sorted(double)[0]} is a factor of variants and of sweep")
        if isinstance(self.processes, dict):
            names = next(iter(self.variants.values()), {}).keys()
            if names != self.processes.keys():
                raise ValueError(f"processes names {sorted(self.processes)}, the first variants are {sorted(names)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One run. `factors` are its values of what the grid varies, the seed not among them; `config` is what its
    `overrides` come to; `processes` are torchrun's."""

    name: str
    factors: dict[str, str]
    seed: int
    overrides: list[str]
    config: RunConfig
    processes: int


@dataclass(frozen=True)
class Grid:
    """A name for the folder, the question, and the cells in their order."""

    name: str
    question: str
    budget: str
    prepare: dict[str, str]
    cells: list[Cell]


def read_grid(arguments: list[str], processes: int | None = None, name: str | None = None) -> Grid:
    """The grid of command-line `arguments`; every cell's configuration has been checked. UserError otherwise."""
    found = [a.removeprefix("experiment=") for a in arguments if a.startswith("experiment=")]
    config, folders = None, config_folders(arguments)
    if len(found) == 1 and (file := find_config("ablation", found[0], folders)):
        arguments = [a for a in arguments if not a.startswith("experiment=")]
        config = _read_config(file)
    elif found and not find_config("experiment", found[0], folders):
        known = sorted([*known_choices("ablation", folders), *known_choices("experiment", folders)])
        raise UserError(f"experiment={found[0]}: unknown{nearest(found[0], known)}; known: {', '.join(known)}")
    common, swept = _split(arguments)
    variants: dict[str, dict[str, list[str]]] = {}
    if config is not None:
        common = [*config.overrides, *common]
        swept = {key: [str(v) for v in values] for key, values in config.sweep.items()} | swept
        variants = config.variants
        fixed = {_key(a) for a in common}  # what the command line fixes is not swept
        swept = {key: values for key, values in swept.items() if key not in fixed}
    cells = _cells(common, variants, swept, processes or (config.processes if config else 1))
    if config:
        check_name(found[0], "experiment", "a grid's folder", MAX_BYTES)
    return Grid(
        name=name or (found[0] if config else "_".join(sorted(re.sub(r"\W+", "-", key) for key in swept)) or "single"),
        question=config.question if config else " ".join([command("ablate"), *shown(arguments)]),
        budget=config.budget if config else "the same prompts in the same order, samples_per_prompt samples of each",
        prepare=config.prepare if config else {},
        cells=cells,
    )


def _read_config(path: Path) -> GridConfig:
    try:
        return GridConfig.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: {key}{': ' if key else ''}{problem['msg']}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None


def _split(arguments: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The fixed overrides, and the swept ones as key -> values."""
    common, swept = [], {}
    for argument in arguments:
        try:
            (override,) = OverridesParser.create().parse_overrides([argument])
        except OverrideParseException as error:
            raise UserError(f"command line: cannot read '{error.override}'") from None
        if override.is_sweep_override():
            swept[override.get_key_element()] = [str(value) for value in override.sweep_string_iterator()]
        else:
            common.append(argument)
    return common, swept


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def _cells(
    common: list[str],
    variants: dict[str, dict[str, list[str]]],
    swept: dict[str, list[str]],
    processes: int | dict[str, int],
) -> list[Cell]:
    cells = []
    for bundles in itertools.product(*(named.items() for named in variants.values())):
        names = [name for name, _ in bundles]
        bundled = [override for _, overrides in bundles for override in overrides]
        for values in itertools.product(*swept.values()):
            chosen = dict(zip(swept, values, strict=True))
            overrides = [*common, *bundled, *(f"{key}={value}" for key, value in chosen.items())]
            try:
                config = load_config(overrides)
            except UserError as error:
                raise UserError(f"cell {' '.join(shown(overrides))}: {error}") from None
            chosen.pop("seed", None)
            factors = dict(zip(variants, names, strict=True)) | chosen
            label = "_".join([*names, *(f"{_short(k)}-{v}" for k, v in chosen.items())])
            name = re.sub(r"[^\w.+-]+", "-", f"{label}_seed-{config.seed}".lstrip("_"))
            count = processes[names[0]] if isinstance(processes, dict) else processes
            cells.append(Cell(name, factors, config.seed, overrides, config, count))
    names = [cell.name for cell in cells]
    for double in {n for n in names if names.count(n) > 1}:
        raise UserError(f"two cells are called {double}: a key is swept twice, or two values look the same")
    return cells


def _short(key: str) -> str:
    return re.split(r"[./]", key)[-1]
