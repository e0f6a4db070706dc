"""Run by test_host_waits.py: python waits_worker.py OUT.json MODEL...

How often each MODEL makes the host wait for the device in one pass forward and backward, by kind of micro-batch.
"""

import json
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.config import ALL_WEIGHTS, ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.setup import process_group
from tests.actor.worker import OPTIMIZER, deal, parallel_of

# A GPU has to be done before the host knows a value, or how many there are.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero", "equal")
KINDS = {"padded": (None, False), "packed": (64, False), "shared": (None, True)}


class Waits(TorchDispatchMode):
    """Counts operations that make the host wait; an index by a mask is a `nonzero` too."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put_", "index_put") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += name in WAITS or by_mask
        return function(*args, **(kwargs or {}))


def main(out: str, *models: str) -> None:
    counts: dict[str, list[int]] = {kind: [] for kind in KINDS}
    with process_group(1, deadline_s=900):
        start_parallel(check_layout(parallel_of({}), read_architecture(models[0])), seed=0)
        for model in models:
            arch, parallel = read_architecture(model), parallel_of({})
            for kind, (tokens, shares_prompts) in KINDS.items():
                actor = Actor(
                    ModelConfig(path=model, dtype="float32", adapter=ALL_WEIGHTS), arch, parallel,
                    check_layout(parallel, arch), OPTIMIZER, temperature=1.0, sequences_per_microbatch=16,
                    tokens_per_microbatch=tokens, shares_prompts=shares_prompts,
                )  # fmt: skip
                batch = deal(actor)
                with Waits() as waits:
                    actor.backward(batch, lambda logp, entropy, rows: (logp.sum(), {}))
                counts[kind].append(waits.count)
    with open(out, "w") as file:
        json.dump(counts, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
