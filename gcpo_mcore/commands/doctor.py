"""Tells, before a run is started, what would go wrong: with the machine, the memory, the data, the reward.

    python tools/doctor.py                                             # this machine: packages, GPUs, disk, ports
    python tools/doctor.py plan --processes 8 --gpu-memory-gib 80 model=qwen2.5-7b parallel.tensor=2
    python tools/doctor.py data data=files data.train.train.path=FILE    # lengths, golden answers, what repeats
    python tools/doctor.py reward reward=math_verify data=files data.train.train.path=FILE

plan, data and reward take the command line of tools/train.py. Of the model, plan reads only its config.json, so the
weights need not be there; it reads no data. Every finding has a remedy. Exit code 0: nothing stands in the way, though
there may be warnings; 1: something does; 2: the configuration is wrong.
"""

import sys
from pathlib import Path

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.monitor.run_log import log_to_stderr

DOES_NOT_FIT = 1


def plan(overrides: list[str], processes: int, gpu_memory_gib: float | None, reserve_gib: float) -> int:
    """Prints the estimate's table and the verdict; the exit code. UserError for a wrong configuration."""
    from gcpo_mcore.base import platform
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.run.load import load_config
    from gcpo_mcore.sizing.estimate import GIB, PHASES, estimate_run

    config = load_config(overrides)
    with_cuda = gpu_memory_gib is not None or platform.HAS_CUDA
    estimate = estimate_run(config, processes, with_cuda)
    device = gpu_memory_gib or platform.device_memory_gib() / (1 if platform.HAS_CUDA else processes)
    layout, arch = estimate.layout, estimate.arch
    shape = f"{arch.family}, {arch.parameters / 1e9:.2f}B parameters, {config.model.dtype}"
    axes = f"data {layout.data} x tensor {layout.tensor} x pipeline {layout.pipeline} x context {layout.context}"
    stage = f", stage {estimate.stage}" if layout.pipeline > 1 else ""
    print_results(f"{shape}; {processes} = {axes}; GiB a process{stage}", ["component", *PHASES], estimate.rows())
    for name, size in estimate.host:
        print(f"in host memory: {name}, {size / GIB:.2f} GiB a process")
    needed = estimate.peak_gib + reserve_gib
    fits = estimate.fits(device - reserve_gib)
    phase = max(estimate.phase_gib, key=lambda name: estimate.phase_gib[name])
    print(
        f"{'fits' if fits else 'does not fit'}: {needed:.2f} GiB in phase {phase} "
        f"(with {reserve_gib:g} for the driver and messages), of {device:.2f} GiB"
    )
    return 0 if fits else DOES_NOT_FIT


def machine(folder: Path) -> int:
    """Prints what is found of this machine; the exit code. folder: where runs would be written."""
    from gcpo_mcore.inspection import machine, packages

    return _tell([*packages.look(), *machine.look(folder)])


def data(overrides: list[str]) -> int:
    """Prints lengths and findings of a configuration's data; the exit code. UserError for a wrong configuration."""
    from gcpo_mcore.data.dataset import load_eval
    from gcpo_mcore.inspection import data
    from gcpo_mcore.monitor.tables import print_results

    config, text, train = _prompts(overrides)
    held_out = load_eval(config.data, text.tokenizer, text.arch.vocabulary, text.ends.ids)
    limits = data.Limits(config.data.max_prompt_tokens, config.rollout.sampling.max_response_tokens)
    print_results("prompts; lengths in tokens", data.COLUMNS, data.table(train, held_out))
    return _tell(data.look(train, held_out, limits))


def reward(overrides: list[str], rows: int) -> int:
    """Tries a configuration's reward on answers to `rows` prompts of each source; the exit code. UserError likewise."""
    from gcpo_mcore.inspection import reward
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.rewarding.grader import Grader

    config, _, train = _prompts(overrides)
    prompts = [loaded.prompts[i] for loaded in train.values() for i in range(min(rows, len(loaded.prompts)))]
    with Grader(config.reward) as grader:
        tried = reward.try_out(grader, prompts)
    print_results(f"reward on {len(prompts):,} prompts", reward.COLUMNS, [one.row() for one in tried])
    return _tell(reward.look(tried))


def _prompts(overrides: list[str]):
    """The configuration, what its model says of text, and its training sources."""
    from gcpo_mcore.data.dataset import load_train
    from gcpo_mcore.hf.hub import local_folder
    from gcpo_mcore.run.load import load_config
    from gcpo_mcore.run.plan import load_text

    config = load_config(overrides)
    text = load_text(local_folder(config.model.path), config.rollout.stop_token_ids)
    return config, text, load_train(config.data, text.tokenizer, text.arch.vocabulary, text.ends.ids)


def _tell(findings) -> int:
    from gcpo_mcore.inspection.finding import exit_code, told

    found = list(findings)
    print("\n".join(told(found)))
    return exit_code(found)


@log_to_stderr()
def main() -> None:
    """The command."""
    parser = program.parser(__doc__)
    commands = parser.add_subparsers(dest="command")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where runs would be written (default: runs)")
    memory = program.add_command(commands, "plan", __doc__, help="estimate a run's memory per GPU")
    memory.add_argument("--processes", type=int, default=1, help="as torchrun would start them (default: 1)")
    memory.add_argument("--gpu-memory-gib", type=float, help="of a GPU; default: this machine's GPU, else its memory")
    memory.add_argument("--reserve-gib", type=float, default=2.0, help="for driver, messages, fragments (default: 2)")
    program.add_command(
        commands, "data", __doc__, help="lengths, golden coverage, prompts that repeat or contradict themselves"
    )
    tried = program.add_command(commands, "reward", __doc__, help="try a reward on sample answers, with its speed")
    tried.add_argument("--rows", type=int, default=100, help="prompts of each source (default: 100)")
    # What is left are overrides, before, between and after the options: argparse itself takes only one run of them.
    args, overrides = parser.parse_known_args()
    if unknown := [o for o in overrides if o.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}")
    try:
        for option in ("processes", "rows"):
            if getattr(args, option, 1) < 1:
                raise UserError(f"--{option} {getattr(args, option)}: needs 1 or more")
        sys.exit(_run(args, overrides))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


def _run(args, overrides: list[str]) -> int:
    match args.command:
        case "plan":
            return plan(overrides, args.processes, args.gpu_memory_gib, args.reserve_gib)
        case "data":
            return data(overrides)
        case "reward":
            return reward(overrides, args.rows)
    return machine(args.folder)


if __name__ == "__main__":
    main()
