"""Samples all-wrong groups again behind a prefix of their golden answers (gcpo_mcore/objective/guide.py)."""

from collections.abc import Mapping
from dataclasses import replace

from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.rollout.sampler import Sampler
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.samples import Facts, Group, Prompt, Sample


class Guiding:
    """Of one run, or of one training stage. `fractions`: by prompt id, how much of its golden answer it gets next.

    The same on every rank.
    """

    def __init__(self, config: RunConfig, sampler: Sampler, phases: Phases):
        self.config, self.guide, self.sampler, self.phases = config, config.algorithm.guide, sampler, phases
        self.fractions: dict[str, float] = {}

    def again(
        self, groups: list[Group[Facts]], store: list[Sample], occasion: str
    ) -> tuple[list[Group[Facts]], dict[str, float], dict[str, float]]:
        """`groups`, those that are due in the guided form; the sums of what was graded; metrics. A collective.

        Both are empty if no group was due. The samples are added to this rank's `store`.
        """
        guided = {number: prompt for number, group in enumerate(groups) if (prompt := self._guided(group)) is not None}
        if not guided:
            return groups, {}, {}
        found, graded = self._sample(list(guided.values()), store, occasion)
        for group in found:
            fraction = self.fractions.get(group.prompt.id, self.guide.first)
            self.fractions[group.prompt.id] = self.guide.next(fraction, is_solved=group.accuracy > 0)
        samples = [sample for group in found for sample in group.samples]
        given = [g.prompt.guided_tokens / (g.prompt.guided_tokens + len(g.prompt.golden_ids or [])) for g in found]
        metrics = {
            "guide/groups": float(len(found)),
            "guide/solved_fraction": sum(group.accuracy > 0 for group in found) / len(found),
            "guide/accuracy": sum(sample.is_accurate for sample in samples) / len(samples),
            "guide/fraction_mean": sum(given) / len(given),
            "guide/tokens": float(sum(sample.tokens for sample in samples)),
        }
        by_number = dict(zip(guided, found, strict=True))
        return [by_number.get(number, group) for number, group in enumerate(groups)], graded, metrics

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return self.fractions

    def restore(self, state: Mapping[str, float]) -> None:
        """Goes to where `state` was taken."""
        self.fractions = dict(state)

    def _guided(self, group: Group[Facts]) -> Prompt | None:
        """The prompt with a prefix of the golden answer behind it, and the rest as its golden answer; None if it is not
        due. One to which nothing is given yet has failed with that."""
        prompt, golden = group.prompt, group.prompt.golden_ids
        if golden is None or not self.guide.is_due(group):
            return None
        fraction = self.fractions.get(prompt.id, self.guide.first)
        length = self.guide.length(golden, fraction, self.sampler.engine.decode)
        if length == 0:
            self.fractions[prompt.id] = self.guide.next(fraction, is_solved=False)
            return None
        ids, rest = [*prompt.token_ids, *golden[:length]], golden[length:]
        return replace(prompt, token_ids=ids, golden_ids=rest, guided_tokens=length)

    def _sample(
        self, prompts: list[Prompt], store: list[Sample], occasion: str
    ) -> tuple[list[Group[Facts]], dict[str, float]]:
        """Graded groups of these prompts, and sums of the grading."""
        sampling, per_prompt = self.config.rollout.sampling, self.config.samples_per_prompt
        longest = max(prompt.guided_tokens for prompt in prompts)  # no row gets longer than without a prefix
        limited = sampling.model_copy(update={"max_response_tokens": sampling.max_response_tokens - longest})
        with self.phases.phase("sample"):
            fragments = self.sampler.generate(prompts, per_prompt, limited, f"train|{occasion}|guided")
        for fragment in fragments:
            given = fragment.prompt.token_ids[-fragment.prompt.guided_tokens :]
            for sample in fragment.samples:  # a reward reads the whole answer
                sample.response_text = self.sampler.engine.decode([*given, *sample.response_ids.tolist()])
        self.sampler.add_golden(fragments, sampling.max_response_tokens)
        with self.phases.phase("grade"):
            return self.sampler.grade(fragments, store)
