"""Held-out accuracy: in training and of a finished Hugging Face folder, by the same code."""

from gcpo_mcore.data.dataset import Loaded
from gcpo_mcore.evaluation.config import EvaluationConfig
from gcpo_mcore.rollout.sampler import Sampler


def evaluate(sampler: Sampler, sources: dict[str, Loaded], settings: EvaluationConfig) -> dict[str, float]:
    """The avg@k of every source as val/SOURCE/avg@k: the share of accurate samples, averaged over problems.

    A collective over all ranks. The random numbers do not depend on the step: two checkpoints meet the same draws.
    """
    k = settings.samples_per_prompt
    metrics = {}
    for name, loaded in sources.items():
        fragments = sampler.generate(list(loaded.prompts), k, settings.sampling, f"val|{name}")
        groups, _ = sampler.grade(fragments, store=[])
        metrics[f"val/{name}/avg@{k}"] = sum(g.accuracy for g in groups) / len(groups)
    return metrics
