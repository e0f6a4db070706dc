"""Run by test_last_words.py under torchrun: python failing_worker.py WHO. Rank 1 fails, or both do."""

import sys

import torch.distributed as dist

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.load import run_tool
from gcpo_mcore.run.setup import process_group

WHO = sys.argv.pop(1)


def fail(composed) -> None:
    with process_group(1, deadline_s=900):
        dist.barrier()
        if WHO == "both" or dist.get_rank() == 1:
            raise UserError("row 7 of the file is torn")
        dist.barrier()


if __name__ == "__main__":
    run_tool(fail)
