"""What a step costs in model tokens: those that the model sampled, scored and trained on."""

from gcpo_mcore.batch import Table
from gcpo_mcore.run.collector import Collected
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.old_logprobs import needs_pass

KINDS = ("sampled", "scored", "trained")


def cost(config: RunConfig, collected: Collected, table: Table | None) -> dict[str, float]:
    """The tokens of a step over all ranks, by what was done with them, and their sum.

    sampled  response tokens that the engine made, also those of groups that are not trained on, and of the round behind
             golden prefixes
    scored   prompt and response tokens of the rows of every pass without a gradient: old and reference log-probs, the
             golden answers' for a gate, and what a loss that compares samples needs before each later update
    trained  prompt and response tokens of the rows in the updates

    A row counts with its whole length, whether or not the engine or the actor shares its prompt with others. What
    evaluations take is not in it.
    """
    scored, trained = _passes(config, table) if table is not None else (0, 0)
    sampled = collected.metrics["rollout/tokens"] + collected.metrics.get("guide/tokens", 0.0)
    counts = dict(zip(KINDS, (sampled, float(scored), float(trained)), strict=True))
    return {f"cost/{kind}_tokens": count for kind, count in counts.items()} | {"cost/tokens": sum(counts.values())}


def _passes(config: RunConfig, table: Table) -> tuple[int, int]:
    """(scored, trained) tokens of a step's rows."""
    algorithm, updates = config.algorithm, config.trainer.updates_per_step
    tokens = table.prompt_tokens + table.tokens
    whole = int(tokens.sum())
    scored = whole * (needs_pass(config) + algorithm.needs_reference)
    if config.trainer.old_logp == "rollout" or (algorithm.golden.measures_reach and not needs_pass(config)):
        scored += int(tokens[table.is_golden].sum())  # they alone have a pass
    if algorithm.surrogate.compares_samples:
        scored += int(tokens[table.update_of(updates) > 0].sum())
    return scored, whole
