"""Golden answers: when, and in whose place, a verified reference solution joins the group.

Decided on the accuracy flag, not on the total reward (GCPO, arXiv 2510.07790: used when ALL sampled
responses of a prompt are incorrect; ONE of them is replaced). Which one the paper's reachable text does not
say: `slot` is our knob.
"""

import hashlib
from typing import Literal

from gcpo_mcore.objective.part import Part
from gcpo_mcore.samples import Group, Sample


class Golden(Part):
    """Kind: golden-answer injection."""

    def rollouts_per_prompt(self, samples_per_prompt: int) -> int:
        """How many responses to sample for a group of `samples_per_prompt`."""
        return samples_per_prompt

    @property
    def needs_golden(self) -> bool:
        """Whether golden answers are read, verified and counted at all."""
        return True

    def inject(self, group: Group, step: int) -> bool:
        """Changes `group` in place if it is due and has a verified golden answer; whether it did."""
        if group.golden is None or not group.golden.is_accurate or not self.is_due(group):
            return False
        slot = self.pick(group, step)
        group.samples[slot] = _golden_at(slot, group.golden)
        return True

    def is_due(self, group: Group) -> bool:
        """Whether this group should get its golden answer."""
        return False

    def pick(self, group: Group, step: int) -> int:
        """The sample to replace."""
        return 0


class Off(Golden, option="off"):
    """Never: groups stay as sampled."""

    @property
    def needs_golden(self) -> bool:
        return False


class _Replace(Golden):
    slot: Literal["random", "lowest_reward", "first", "longest"]

    def pick(self, group: Group, step: int) -> int:
        samples = group.samples
        if self.slot == "random":  # seeded by prompt and step: the same on every rank and after a resume
            digest = hashlib.sha256(f"{group.prompt.id}|{step}".encode()).digest()
            return int.from_bytes(digest[:8], "little") % len(samples)
        if self.slot == "lowest_reward":
            return min(range(len(samples)), key=lambda i: (samples[i].reward, i))
        if self.slot == "longest":
            return max(range(len(samples)), key=lambda i: (len(samples[i].response_ids), -i))
        return 0


class AllWrong(_Replace, option="all_wrong"):
    """When no sample of the group is accurate (GCPO)."""

    def is_due(self, group: Group) -> bool:
        return not any(s.is_accurate for s in group.samples)


class Always(_Replace, option="always"):
    """In every group (as LUFFY does with its one off-policy trace, arXiv 2504.14945)."""

    def is_due(self, group: Group) -> bool:
        return True


class Only(Golden, option="only"):
    """Nothing is sampled: the golden answer is the whole group (supervised training)."""

    def rollouts_per_prompt(self, samples_per_prompt: int) -> int:
        return 0

    def inject(self, group: Group, step: int) -> bool:
        if group.golden is None or not group.golden.is_accurate:
            return False
        group.samples = [_golden_at(0, group.golden)]
        return True


def _golden_at(slot: int, golden: Sample) -> Sample:
    golden.index = slot
    return golden
