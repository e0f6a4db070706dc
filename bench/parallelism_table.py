"""The table of docs/parallelism.md: every layout's largest differences to one process.

    python bench/parallelism_table.py [--only chunks]

The layouts are those of tests/actor/test_invariance.py and some with a distributed optimizer or experts. Each takes one
backward pass and three updates of the same batch, in processes of its own. --only measures the layouts whose names
contain a text, and leaves the other rows as they are.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gcpo_mcore.actor import hf_mapping  # noqa: E402 (the tests' helpers lie beside the package)
from gcpo_mcore.run.load import load_config  # noqa: E402
from tests.actor.families import make_model  # noqa: E402
from tests.actor.test_invariance import LAYOUTS  # noqa: E402
from tests.actor.worker import actor_of, off_policy_batch  # noqa: E402

DOC = ROOT / "docs" / "parallelism.md"
HEADER = "| layout | processes | loss | gradient norm | gradient | weights |\n|---|---|---|---|---|---|\n"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
MORE = {  # the tests take them packed only
    "CP2xTP2 sequence parallel": (4, ["context=2", "tensor=2", "sequence=1"]),
    "CP2xPP2": (4, ["context=2", "pipeline=2"]),
}
SHARDED = {
    "DP2 distributed optimizer": (2, ["distributed_optimizer=1"]),
    "DP2 distributed optimizer, overlap": (2, ["distributed_optimizer=1", "overlap=1"]),
    "CP2 distributed optimizer": (2, ["context=2", "distributed_optimizer=1"]),
    "PP2 in 2 chunks, distributed optimizer": (2, ["pipeline=2", "virtual_pipeline=2", "distributed_optimizer=1"]),
    "DP2xPP2 distributed optimizer": (4, ["pipeline=2", "distributed_optimizer=1"]),
}
EXPERTS = {
    "EP2": (2, ["expert=2"]),
    "EP2 over TP2 sequence parallel": (2, ["tensor=2", "sequence=1", "expert=2"]),
    "EP2 over CP2": (2, ["context=2", "expert=2"]),
    "EP2, selective recompute": (2, ["expert=2", "recompute=selective"]),
}


def work(model: str, out: str, *options: str) -> None:
    """One layout's loss, gradient norm, gradient and weights, into the file `out`."""
    o = dict(option.split("=", 1) for option in options)
    with actor_of(model, o) as actor:
        algorithm = load_config(["algorithm=gcpo", "algorithm.entropy_coefficient=0.01", "algorithm/kl=k3"]).algorithm
        batch, _ = off_policy_batch(actor, algorithm)
        loss = actor.backward(batch, algorithm.loss)[0]["actor/loss"]
        gradient = flat(hf_mapping.export(actor.stage().chunks, actor.arch, lambda p: p.main_grad))
        metrics = [actor.update(batch, algorithm.loss, update, 3)[0] for update in range(3)]
        weights = flat(actor.export())
        if dist.get_rank() == 0:
            torch.save((loss, metrics[0]["actor/grad_norm"], gradient, weights), out)


def flat(exported) -> torch.Tensor:
    """All tensors in one, fp64, in the order of their names: the order of the stream is the layout's."""
    tensors = {name: tensor.double().flatten() for name, tensor in exported}
    return torch.cat([tensors[name] for name in sorted(tensors)])


def measure(model: Path, folder: Path, processes: int, options: list[str]) -> tuple:
    """What `work` finds, in processes of its own."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    out = folder / "out.pt"
    subprocess.run([*command, __file__, "--work", str(model), str(out), *options], check=True, capture_output=True)
    return torch.load(out)


def row(name: str, processes: int, options: list[str], found: tuple, expected: tuple) -> str:
    """The table's row of one layout."""
    loss, norm, gradient, weights = found
    relative = [abs(loss - expected[0]) / abs(expected[0]), abs(norm - expected[1]) / expected[1]]
    cells = [f"{x:.1e}" for x in relative]
    is_sharded = "distributed_optimizer=1" in options
    cells.append("" if is_sharded else f"{float((gradient - expected[2]).norm() / expected[2].norm()):.1e}")
    cells.append(f"{float((weights - expected[3]).abs().max()):.1e}")
    return f"| {name} | {processes} | {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a part of layouts' names", default="")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    text = DOC.read_text()
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    rows = {line.split(" | ")[0]: line for line in text[len(head) : -len(tail)].splitlines(keepends=True)[2:]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dense = make_model("qwen2", folder / "dense", num_hidden_layers=4)
        experts = make_model("qwen3-moe", folder / "experts", num_hidden_layers=4)
        for model, layouts in ((dense, LAYOUTS | MORE | SHARDED), (experts, EXPERTS)):
            chosen = {n: layout for n, layout in layouts.items() if args.only in n}
            expected = measure(model, folder, 1, []) if chosen else None
            for layout, (processes, options) in chosen.items():
                found = measure(model, folder, processes, options)
                rows[f"| {layout}"] = row(layout, processes, options, found, expected)
                print(rows[f"| {layout}"], end="", flush=True)
    names = [f"| {n}" for n in LAYOUTS | MORE | SHARDED | EXPERTS]
    DOC.write_text(head + HEADER + "".join(rows[n] for n in names if n in rows) + tail)


if __name__ == "__main__":
    main()
