"""Run by test_recompute.py: python recompute_worker.py OUT.json MODEL...

For every MODEL and parallel.recompute, how often a layer's parts run in one update of one micro-batch.
"""

import json
import sys
from functools import partial

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.config import ALL_WEIGHTS, ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.setup import process_group
from tests.actor.worker import OPTIMIZER, deal, parallel_of


def _count(runs: dict, name: str, *_) -> None:
    runs[name] += 1


def main(out: str, *models: str) -> None:
    counts: dict[str, dict] = {}
    with process_group(1, deadline_s=900):
        start_parallel(check_layout(parallel_of({}), read_architecture(models[0])), seed=0)
        for model in models:
            arch = read_architecture(model)
            for recompute in ("none", "selective", "full"):
                parallel = parallel_of({"recompute": recompute})
                actor = Actor(
                    ModelConfig(path=model, dtype="float32", adapter=ALL_WEIGHTS), arch, parallel,
                    check_layout(parallel, arch), OPTIMIZER,
                    temperature=1.0, sequences_per_microbatch=16, tokens_per_microbatch=None,
                )  # fmt: skip
                runs = counts.setdefault(arch.family, {}).setdefault(recompute, {"mlp": 0, "self_attention": 0})
                layer = actor.stage().chunks[0].decoder.layers[0]
                inside = layer.mlp.router if arch.experts else layer.mlp  # a layer of experts repeats its inside
                for name, part in (("mlp", inside), ("self_attention", layer.self_attention)):
                    part.register_forward_hook(partial(_count, runs, name))
                actor.backward(deal(actor), lambda logp, entropy, rows: (logp.sum(), {}))
    with open(out, "w") as file:
        json.dump(counts, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
