"""Which prompts come next: a mixture of sources that a checkpoint can put back exactly.

The cursor counts prompts, never ranks or micro-batches, so a run may resume on another layout. Every order is a pure
function of (seed, source name, epoch): the state is a few counters, not a shuffled list.
"""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from gcpo_mcore.errors import UserError
from gcpo_mcore.samples import Prompt


def permutation(key: str, n: int) -> list[int]:
    """0..n-1 in an order that only `key` decides.

    Sorting by a hash, rather than a library's shuffle: the same on every machine and in every version.
    """
    return sorted(range(n), key=lambda i: hashlib.blake2b(f"{key}/{i}".encode(), digest_size=8).digest())


def fingerprint(prompts: list[Prompt]) -> str:
    """16 hex digits that change when a prompt, its answer, its tokens or the order changes."""
    digest = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        digest.update(repr((prompt.id, prompt.token_ids, prompt.answer)).encode())
    return digest.hexdigest()


class _Stream:
    """One source, endlessly: each epoch shows every prompt once, in an order of its own."""

    def __init__(self, name: str, prompts: list[Prompt], weight: float, seed: int):
        self.name, self.prompts, self.seed = name, prompts, seed
        self.weight = Fraction(str(weight))  # as written: 0.1 and 0.3 tie where their binary floats would not
        self.fingerprint = fingerprint(prompts)
        self.taken = 0
        self.seek(epoch=0, offset=0)

    def seek(self, epoch: int, offset: int) -> None:
        self.epoch, self.offset = epoch, offset
        self._order = permutation(f"{self.seed}/{self.name}/{epoch}", len(self.prompts))

    def next(self, skip: Callable[[Prompt], bool]) -> Prompt:
        self.taken += 1
        for _ in range(len(self.prompts)):
            if self.offset == len(self.prompts):
                self.seek(self.epoch + 1, 0)
            prompt = self.prompts[self._order[self.offset]]
            self.offset += 1
            if not skip(prompt):
                break
        return prompt


class Mixture:
    """An endless stream over several sources in exact proportion to their weights.

    sources   name -> its prompts, at least one each; the order of the names decides ties
    weights   name -> weight > 0, the same names; only their ratio matters
    seed      decides the order within every source

    The next prompt is from the source with the lowest taken/weight, so the proportion is off by less than one prompt
    at any time for two sources and 16 prompts at 0.5/0.5 are always 8 and 8. A row comes again only in the next epoch
    of its source, which may begin in the middle of a `take`.
    """

    def __init__(self, sources: dict[str, list[Prompt]], weights: dict[str, float], seed: int):
        if not sources:
            raise UserError("the mixture has no source")
        if sources.keys() != weights.keys():
            raise UserError(f"the mixture has sources {sorted(sources)} but weights for {sorted(weights)}")
        for name, prompts in sources.items():
            if not prompts:
                raise UserError(f"source '{name}' has no prompt")
            if not 0 < weights[name] < float("inf"):
                raise UserError(f"source '{name}' has weight {weights[name]}; it must be above 0 and finite")
        self.seed = seed
        self._streams = [_Stream(name, prompts, weights[name], seed) for name, prompts in sources.items()]

    def take(self, n: int, skip: Callable[[Prompt], bool] = lambda prompt: False) -> list[Prompt]:
        """The next n prompts, interleaved over the sources, without those that `skip` says.

        Where it would skip a whole source, a prompt of that source is taken all the same.
        """
        return [min(self._streams, key=lambda s: s.taken / s.weight).next(skip) for _ in range(n)]

    def state(self) -> dict[str, Any]:
        """Where the stream stands, in plain json values: counters, and what `restore` compares."""
        sources = {
            s.name: {
                "epoch": s.epoch,
                "offset": s.offset,
                "taken": s.taken,
                "weight": str(s.weight),
                "rows": len(s.prompts),
                "fingerprint": s.fingerprint,
            }
            for s in self._streams
        }
        return {"seed": self.seed, "sources": sources}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken. UserError, and nothing moved, if seed or sources are not those of then."""
        if state["seed"] != self.seed:
            raise UserError(f"the data cursor was saved with seed {state['seed']}, this run has seed {self.seed}")
        saved, now = state["sources"], self.state()["sources"]
        if saved.keys() != now.keys():
            raise UserError(f"the data cursor was saved with sources {sorted(saved)}, this run has {sorted(now)}")
        for name in now:
            for field, then in saved[name].items():
                if field in ("weight", "rows", "fingerprint") and then != now[name][field]:
                    raise UserError(
                        f"source '{name}' has {field} {now[name][field]}, the data cursor was saved with {then}"
                    )
        for stream in self._streams:
            stream.taken = saved[stream.name]["taken"]
            stream.seek(saved[stream.name]["epoch"], saved[stream.name]["offset"])
