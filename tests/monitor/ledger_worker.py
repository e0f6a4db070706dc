"""Run by test_ledger.py under torchrun: rank 0 prints the ledger of two steps as json, and the peak since the start."""

import json

import torch
import torch.distributed as dist

from gcpo_mcore.base import platform
from gcpo_mcore.monitor.ledger import Ledger
from gcpo_mcore.monitor.watchdog import Phases


def main() -> None:
    dist.init_process_group("gloo")
    platform.give_memory_back()
    ledger = Ledger()
    phases = Phases(dist.get_rank(), 60, ledger)
    steps = []
    with phases.phase("large"):
        if dist.get_rank() == 1:  # the largest is another rank's than the one that writes
            torch.ones(100 * 2**18)  # 100 MiB, gone again before the phase ends
    with phases.phase("small"):
        pass
    steps.append(ledger.drain())
    with phases.phase("around"):
        with phases.phase("inner"):
            torch.ones(50 * 2**18)
        torch.ones(2**18)
    with phases.phase("small"):
        pass
    steps.append(ledger.drain())
    everyone = [None] * 2
    dist.all_gather_object(everyone, platform.memory_gib())
    if dist.get_rank() == 0:
        print(json.dumps([*steps, everyone]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
