"""Tells, before a run is started, what it needs of a GPU's memory and whether it fits.

    python tools/doctor.py plan [--processes 8] [--gpu-memory-gib 80] [group=choice] [a.b=value]

takes the command line of tools/train.py. Of the model only its config.json is read, so the weights need not be there;
data is not read either. Exit code 1: it does not fit; 2: the configuration is wrong.
"""

import sys

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


@log_to_stderr()
def main() -> None:
    parser = program.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("plan", help="estimate a run's memory per GPU")
    command.add_argument("--processes", type=int, default=1, help="as torchrun would start them (default: 1)")
    command.add_argument("--gpu-memory-gib", type=float, help="of a GPU; default: this machine's GPU, else its memory")
    command.add_argument("--reserve-gib", type=float, default=2.0, help="for driver, messages, fragments (default: 2)")
    # What is left are overrides, before, between and after the options: argparse itself takes only one run of them.
    args, overrides = parser.parse_known_args()
    if unknown := [o for o in overrides if o.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}")
    try:
        if args.processes < 1:
            raise UserError(f"--processes {args.processes}: needs 1 or more")
        sys.exit(plan(overrides, args.processes, args.gpu_memory_gib, args.reserve_gib))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()
