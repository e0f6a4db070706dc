"""Run by test_heartbeat.py under torchrun: python waiting_worker.py WHAT. Rank 0 waits for rank 1, to which WHAT
happens; outside of a phase if rank 1 is `quiet`."""

import os
import signal
import sys
import time
from datetime import timedelta

import torch.distributed as dist

from gcpo_mcore.base.stop import stoppable
from gcpo_mcore.monitor import heartbeat
from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.run.load import run_tool
from gcpo_mcore.run.setup import process_group

WHAT = sys.argv.pop(1)
NEVER_S = 3600.0


def wait(composed) -> None:
    deadline_s = 4.0 if WHAT in ("stopped", "quiet", "late") else NEVER_S
    with stoppable(NEVER_S, heartbeat.gone), process_group(1, deadline_s):
        phases = Phases(dist.get_rank(), deadline_s if dist.get_rank() == 0 else NEVER_S)
        # The group's own deadline is as long; here it comes later, or where no phase is there before.
        later = dist.new_group(timeout=timedelta(seconds=deadline_s if WHAT == "quiet" else NEVER_S))
        dist.barrier()
        with phases.phase("grade"):
            here = heartbeat.present()
            if dist.get_rank() == 1 and here:
                while here.beats()[1].phase != "grade":
                    time.sleep(0.01)
                {
                    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
                    "quiet": lambda: os.kill(os.getpid(), signal.SIGSTOP),
                    "dead": lambda: os.kill(os.getpid(), signal.SIGKILL),
                    "late": lambda: time.sleep(NEVER_S),
                }[WHAT]()
        if WHAT != "quiet":
            with phases.phase("deal"):
                dist.barrier(later)
        dist.barrier(later)


if __name__ == "__main__":
    run_tool(wait)
