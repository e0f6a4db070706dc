"""torchrun with words and exit codes of a run's own: python -m gcpo_mcore.base.torchrun, and its arguments as usual.

Told to end (SIGTERM, SIGINT) it passes that on, waits for the ranks (for GRACE_S, unless the environment variable
TORCH_ELASTIC_SHUTDOWN_TIMEOUT is set) and ends with stop.EXIT_CODE, without a traceback. Where a rank fails, its exit
code is that of the one that failed first, and its report stands alone. torchrun itself ends with 1 and a traceback in
both cases.
"""

import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from gcpo_mcore.base.stop import EXIT_CODE, name

GRACE_S = 3600  # the ranks keep a deadline of their own, monitor.stop_deadline_s


def main(arguments: list[str]) -> int:
    """The exit code, once all ranks have ended."""
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE_S))
    try:
        run(get_args_parser().parse_args(arguments))
    except SignalException as told:
        print(f"torchrun: {name(told.sigval)}: the ranks have ended", file=sys.stderr)
        return EXIT_CODE
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        print(failed, file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    sys.exit(main(sys.argv[1:]))
