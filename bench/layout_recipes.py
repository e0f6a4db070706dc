"""Fills the table of docs/layouts.md in: what `tools/doctor.py plan` counts for a model on 1, 8 and 64 GPUs of 80 GB.

    python bench/layout_recipes.py

Of a model only its config.json is read (configs/shapes), nothing is built, and NOTHING OF IT WAS RUN ON A GPU.
tests/sizing/test_recipes.py sees that the page has what this makes.
"""

from pathlib import Path
from typing import NamedTuple

from gcpo_mcore.run.load import load_config
from gcpo_mcore.sizing.estimate import GIB, PHASES, estimate_run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "layouts.md"
BEGIN, END = "<!-- recipes -->\n", "<!-- end of recipes -->"
GPU_GIB, RESERVE_GIB = 80.0, 2.0  # of doctor's --gpu-memory-gib and --reserve-gib
COMMON = [
    "data=files", "reward=math_verify", "rollout=sglang", "actor.offload=all", "trainer.tokens_per_microbatch=8192",
    "data.max_prompt_tokens=1024", "rollout.sampling.max_response_tokens=4096",
]  # fmt: skip
ADAPTER = "model/adapter=lora parallel.recompute=full"
SHARED = "parallel.distributed_optimizer=true parallel.recompute=selective"


class Recipe(NamedTuple):
    """One line of the table: the settings beside COMMON, as they are typed."""

    model: str
    gpus: int
    settings: str


def _tensor(size: int, per_node: int = 8) -> str:
    """The settings of a tensor-parallel actor with servers of the same size, on nodes of `per_node` GPUs."""
    return (
        f"parallel.tensor={size} parallel.sequence=true "
        f"rollout.tensor_parallel={size} rollout.start_servers={per_node // size}"
    )


RECIPES = [
    Recipe("qwen2.5-1.5b", 1, "parallel.recompute=selective"),
    Recipe("qwen2.5-1.5b", 8, f"{SHARED} rollout.start_servers=8"),
    Recipe("qwen2.5-1.5b", 64, f"{SHARED} rollout.start_servers=8"),
    Recipe("qwen2.5-7b", 1, f"{ADAPTER} rollout.requests_per_server=192"),
    Recipe("qwen2.5-7b", 8, f"{_tensor(2)} {SHARED}"),
    Recipe("qwen2.5-7b", 64, f"{_tensor(2)} {SHARED}"),
    Recipe("qwen2.5-14b", 1, f"{ADAPTER} rollout.requests_per_server=32"),
    Recipe("qwen2.5-14b", 8, f"{_tensor(4)} {SHARED}"),
    Recipe("qwen2.5-14b", 64, f"{_tensor(4)} {SHARED}"),
    Recipe("yi-1.5-34b", 1, f"{ADAPTER} rollout.requests_per_server=8"),
    Recipe("yi-1.5-34b", 8, f"{_tensor(8)} {ADAPTER}"),
    Recipe("yi-1.5-34b", 64, f"{_tensor(8)} {SHARED}"),
]


def row(recipe: Recipe) -> str:
    """A recipe's line of the table: GiB of the GPU that needs the most, by phase, and whether that fits."""
    config = load_config([*COMMON, f"model={recipe.model}", *recipe.settings.split()])
    estimate = estimate_run(config, recipe.gpus)
    by_phase = [f"{estimate.phase_gib[phase]:.1f}" for phase in PHASES]
    host = f"{sum(size for _, size in estimate.host) / GIB:.1f}"
    verdict = "fits" if estimate.fits(GPU_GIB - RESERVE_GIB) else "**does not fit**"
    return "| " + " | ".join([recipe.model, str(recipe.gpus), *by_phase, host, verdict, f"`{recipe.settings}`"]) + " |"


def table() -> str:
    """The whole table, in markdown."""
    heads = ["model", "GPUs", *PHASES, "host", "80 GB", "settings"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *map(row, RECIPES)]
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """`text` with the table between its two marks made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
