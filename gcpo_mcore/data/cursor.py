"""The prompts that come next: a mixture of sources that a checkpoint can put back exactly.

The cursor counts prompts, never ranks or micro-batches, so a run may resume on another layout. Every order is a pure
function of (seed, source name, epoch) and the rows: the state is a few counters, not a shuffled list.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sized
from fractions import Fraction
from typing import Any

import numpy as np

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.prompts import Listed, Prompts
from gcpo_mcore.samples import Prompt

Order = Callable[[Prompts, str, int], np.ndarray]  # prompts, key, epoch -> [n] their places in that epoch's order
Skip = Callable[[Prompt, int], bool]  # prompt, epoch of its source -> whether it is passed over


def permutation(key: str, n: int) -> np.ndarray:
    """[n] int64, the numbers 0..n-1 in an order that only `key` decides.

    Sorting by a hash, rather than a library's shuffle: the same on every machine and in every version.
    """
    hashes = b"".join(hashlib.blake2b(f"{key}/{i}".encode(), digest_size=8).digest() for i in range(n))
    return np.argsort(np.frombuffer(hashes, ">u8"), kind="stable")


def order_digest(places: np.ndarray) -> str:
    """16 hex digits that change when the order does."""
    return hashlib.blake2b(np.asarray(places, "<i8").tobytes(), digest_size=8).hexdigest()


def whole_fingerprint(prompts: Iterable[Prompt]) -> str:
    """What stands for prompts, in an order, in checkpoints of version 0.1.0."""
    digest = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        digest.update(repr((prompt.id, prompt.token_ids, prompt.answer, *prompt.other_answers)).encode())
    return digest.hexdigest()


def shuffled(prompts: Sized, key: str, epoch: int) -> np.ndarray:
    """[n] the places of `prompts` in an order that only their number, `key` and the epoch decide."""
    return permutation(f"{key}/{epoch}", len(prompts))


class _Stream:
    """One source, endlessly: each epoch shows the prompts of its order, by default every one once."""

    def __init__(self, name: str, prompts: Prompts, weight: float | Fraction, seed: int, order: Order):
        self.name, self.prompts, self.seed, self.order = name, prompts, seed, order
        self.weight = Fraction(str(weight))  # as written: 0.1 and 0.3 tie where their binary floats would not
        self.taken = 0
        self.seek(epoch=0, offset=0)
        self.first_places = self._places
        self.contents = {  # what a checkpoint says of them
            "weight": str(self.weight),
            "rows": len(prompts),
            "fingerprint": prompts.fingerprint,
            "order": order_digest(self.first_places),
        }

    def seek(self, epoch: int, offset: int) -> None:
        self.epoch, self.offset = epoch, offset
        self._places = self.order(self.prompts, f"{self.seed}/{self.name}", epoch)

    def next(self, skip: Skip) -> Prompt:
        self.taken += 1
        for _ in range(len(self._places)):
            if self.offset == len(self._places):
                self.seek(self.epoch + 1, 0)
            prompt = self.prompts[int(self._places[self.offset])]
            self.offset += 1
            if not skip(prompt, self.epoch):
                break
        return prompt

    def is_same(self, field: str, then: Any) -> bool:
        """Whether a checkpoint's word of the contents is still true; also in the words of version 0.1.0."""
        if then == self.contents[field]:
            return True
        if field == "fingerprint":
            return then == whole_fingerprint(self.prompts)
        return field == "order" and then == whole_fingerprint(self.prompts[int(i)] for i in self.first_places)


class Mixture:
    """An endless stream over several sources in exact proportion to their weights.

    sources   name -> its prompts, at least one each; the order of the names decides ties
    weights   name -> weight > 0, the same names; only their ratio matters
    seed      decides the order within every source
    order     the order of an epoch of a source, by default shuffled; or one for each source, by its name. It may leave
              rows out, and have some more than once

    The next prompt is from the source with the lowest taken/weight, so the proportion is off by less than one prompt
    at any time for two sources and 16 prompts at 0.5/0.5 are always 8 and 8. A row comes again only in the next epoch
    of its source, which may begin in the middle of a `take`.
    """

    def __init__(
        self,
        sources: Mapping[str, Prompts | list[Prompt]],
        weights: Mapping[str, float | Fraction],
        seed: int,
        order: Order | Mapping[str, Order] = shuffled,
    ):
        if not sources:
            raise UserError("the mixture has no source")
        if sources.keys() != weights.keys():
            raise UserError(f"the mixture has sources {sorted(sources)} but weights for {sorted(weights)}")
        for name, prompts in sources.items():
            if not len(prompts):
                raise UserError(f"source '{name}' has no prompt")
            if not 0 < weights[name] < float("inf"):
                raise UserError(f"source '{name}' has weight {weights[name]}; it must be above 0 and finite")
        self.seed = seed
        prompts_of = {name: Listed(given) if isinstance(given, list) else given for name, given in sources.items()}
        order_of = order if isinstance(order, Mapping) else dict.fromkeys(sources, order)
        self._streams = [_Stream(name, p, weights[name], seed, order_of[name]) for name, p in prompts_of.items()]
        self._given_back: list[Prompt] = []

    def take(self, n: int, skip: Skip = lambda prompt, epoch: False) -> list[Prompt]:
        """The next n prompts, interleaved over the sources, without those that `skip` says.

        Where it would skip a whole source, a prompt of that source is taken all the same. Those that were given back
        come first.
        """
        first, self._given_back = self._given_back[:n], self._given_back[n:]
        return first + [min(self._streams, key=lambda s: s.taken / s.weight).next(skip) for _ in range(n - len(first))]

    def give_back(self, prompts: list[Prompt]) -> None:
        """Puts prompts that were taken and not used before all others."""
        self._given_back = prompts + self._given_back

    def prompts(self, ids: list[str]) -> list[Prompt]:
        """Those prompts of the sources."""
        by_id = {id_: prompt for s in self._streams for id_, prompt in s.prompts.by_id(set(ids)).items()} if ids else {}
        return [by_id[id_] for id_ in ids]

    def state(self) -> dict[str, Any]:
        """The place where the stream stands, in plain json values: counters, and what `restore` compares."""
        sources = {
            s.name: {"epoch": s.epoch, "offset": s.offset, "taken": s.taken, **s.contents} for s in self._streams
        }
        return {"seed": self.seed, "sources": sources, "given_back": [prompt.id for prompt in self._given_back]}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where `state` was made. UserError, and nothing moved, if seed or sources are not those of then."""
        if state["seed"] != self.seed:
            raise UserError(f"the data cursor was saved with seed {state['seed']}, this run has seed {self.seed}")
        saved, now = state["sources"], self.state()["sources"]
        if saved.keys() != now.keys():
            raise UserError(f"the data cursor was saved with sources {sorted(saved)}, this run has {sorted(now)}")
        for stream in self._streams:
            for field, then in saved[stream.name].items():
                if field in stream.contents and not stream.is_same(field, then):
                    raise UserError(
                        f"source '{stream.name}' has {field} {stream.contents[field]}, "
                        f"the data cursor was saved with {then}"
                    )
        self._given_back = self.prompts(state.get("given_back", []))
        for stream in self._streams:
            stream.taken = saved[stream.name]["taken"]
            stream.seek(saved[stream.name]["epoch"], saved[stream.name]["offset"])
