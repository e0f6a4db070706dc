"""A run's checkpoint as a Hugging Face folder: python tools/convert.py to-hf RUN OUT [--step N]

RUN is a run folder (runs/NAME: its newest good checkpoint, or --step) or one checkpoint folder in it. Runs as
one process whatever layout wrote the checkpoint. OUT appears whole or not at all, after its logits were compared
with the checkpoint's.
"""

import argparse
import sys
from pathlib import Path

from gcpo_mcore.errors import EXIT_CODE, UserError


def to_hf(run: Path, out: Path, step: int | None) -> None:
    """Writes `out` from the checkpoint. UserError if there is none, or `out` exists."""
    from omegaconf import OmegaConf

    from gcpo_mcore.run_folder import RunFolder, check
    from gcpo_mcore.setup import process_group

    if run.name.startswith("step_"):
        run, step = run.parents[1], int(run.name.removeprefix("step_"))
    folder = RunFolder(run)
    if not folder.steps():
        raise UserError(f"{run} is no run folder with checkpoints")
    checkpoint = folder.newest_good() if step is None else folder.folder(step)
    if checkpoint is None:
        raise UserError(f"{run} has no good checkpoint")
    if problem := check(checkpoint):
        raise UserError(f"{checkpoint}: {problem}")
    if out.exists():
        raise UserError(f"{out} exists; remove it or choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    dtype = OmegaConf.load(folder.path / "config.yaml").model.dtype
    with process_group(threads=None, deadline_s=1800):
        from gcpo_mcore.actor.convert import checkpoint_to_hf

        difference = checkpoint_to_hf(checkpoint, folder.path / "model", dtype, out)
    print(f"{checkpoint} -> {out}  (largest logit difference to the checkpoint: {difference:.1e})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("to-hf", help="a run's checkpoint -> a Hugging Face folder")
    command.add_argument("run", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--step", type=int, help="default: the newest good one")
    args = parser.parse_args()
    try:
        to_hf(args.run, args.out, args.step)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()
