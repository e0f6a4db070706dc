"""Which rows of the sources are drawn, and how often: shares of a source's draws, and a weight of each row."""

import hashlib
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import DataConfig, TrainSource
from gcpo_mcore.data.curriculum import kept_order
from gcpo_mcore.data.cursor import Mixture, Order
from gcpo_mcore.data.files import value_at
from gcpo_mcore.data.prompts import Prompts


def mixture(sources: Mapping[str, Prompts], config: DataConfig, seed: int, only_golden_rows: bool = False) -> Mixture:
    """The stream of training prompts: every source by its weight, and within it by `golden_share` and `row_weight`.

    A source with a share is two streams, its rows with a golden answer and those without. `only_golden_rows` draws the
    former alone, of all sources that have any. UserError if rows are wanted that a source does not have.
    """
    streams: dict[str, tuple[Prompts, Fraction, Order]] = {}
    for name, prompts in sources.items():
        settings = config.train[name]
        has_golden = prompts.golden_tokens() > 0
        weight = Fraction(str(settings.weight))  # as written: 0.1, not its float
        share = 1.0 if only_golden_rows else settings.golden_share
        if only_golden_rows and not has_golden.any():
            continue
        every = np.ones(len(prompts), bool)
        parts = {name: (every, Fraction(1))}
        if share is not None:
            of_golden = Fraction(str(share))
            parts = {f"{name}/golden": (has_golden, of_golden), f"{name}/other": (~has_golden, 1 - of_golden)}
        for part, (rows, of_draws) in parts.items():
            if of_draws > 0:
                streams[part] = (prompts, weight * of_draws, _order(part, rows, settings, config, prompts))
    if not streams:
        raise UserError("no source has golden answers (stages.*.only_golden_rows)")
    return Mixture(
        {name: prompts for name, (prompts, _, _) in streams.items()},
        {name: weight for name, (_, weight, _) in streams.items()},
        seed,
        {name: order for name, (_, _, order) in streams.items()},
    )


def _order(part: str, rows: np.ndarray, settings: TrainSource, config: DataConfig, prompts: Prompts) -> Order:
    """The order of the `rows` [n] bool of a source. UserError if there are none to draw."""
    if not rows.any():
        name, _, kind = part.partition("/")
        with_or_without = "with" if kind == "golden" else "without"
        raise UserError(
            f"data.train.{name}.golden_share={settings.golden_share}: it has no row {with_or_without} a golden answer"
        )
    order = kept_order(config.curriculum)
    chosen = order if rows.all() else _among(rows, order)
    if settings.row_weight is None:
        return chosen
    weights = _row_weights(settings.row_weight, prompts)
    if not weights[rows].any():
        raise UserError(f"source {part}: every row has {settings.row_weight}=0 (data.train.*.row_weight)")
    return _repeating(chosen, weights)


def _among(rows: np.ndarray, order: Order) -> Order:
    """`order` without the places that `rows` [n] bool leaves out."""

    def chosen(prompts: Prompts, key: str, epoch: int) -> np.ndarray:
        places = order(prompts, key, epoch)
        return places[rows[places]]

    return chosen


def _row_weights(column: str, prompts: Prompts) -> np.ndarray:
    """[n] the numbers in a column. UserError, naming the row, for what is none."""
    weights = np.zeros(len(prompts))
    for place, prompt in enumerate(prompts):
        found = value_at(prompt.columns, column)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
            raise UserError(f"{prompt.id}: {column} is {found!r}, not a weight >= 0 (data.train.*.row_weight)")
        weights[place] = found
    return weights


def _repeating(order: Order, weights: np.ndarray) -> Order:
    """`order` in which a row comes as often as its weight says; 2.5: twice in an epoch, and in half of them once more.

    The turns of a row are spread evenly over the epoch, its first one where it would be without weights.
    """

    def repeated(prompts: Prompts, key: str, epoch: int) -> np.ndarray:
        places = np.asarray(order(prompts, key, epoch))
        turns = np.floor(weights[places] + _uniform(f"{key}/{epoch}", len(weights))[places]).astype(np.int64)
        if not turns.any():  # all weights are small
            turns[int(np.argmax(weights[places]))] = 1
        rank = np.arange(len(places)) / len(places)
        number = np.concatenate([np.arange(t) for t in turns])
        position = (number + np.repeat(rank, turns)) / np.repeat(np.maximum(turns, 1), turns)
        return np.repeat(places, turns)[np.argsort(position, kind="stable")]

    return repeated


def _uniform(key: str, n: int) -> np.ndarray:
    """[n] numbers in [0, 1) that only `key` decides."""
    hashes = b"".join(hashlib.blake2b(f"{key}/turn/{i}".encode(), digest_size=8).digest() for i in range(n))
    return (np.frombuffer(hashes, ">u8") >> 11).astype(np.float64) / 2**53
