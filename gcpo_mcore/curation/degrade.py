"""The rows of a data set with damaged golden answers, and what the run's own reward says of them."""

import random
import re
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.curation import damage
from gcpo_mcore.curation.fill import verified
from gcpo_mcore.data.files import Row
from gcpo_mcore.data.shapes import columns_of
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.config import RunConfig


def degrade(
    rows: list[Row],
    config: RunConfig,
    grader: Grader,
    truncate: float,
    corrupt: float,
    wrong_answer: float,
    step_separator: str,
    seed: int,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows with worse golden answers, and counts.

    golden_answer gets the changes, golden_degraded a list of them (empty: the row was left alone, for example because
    its golden answer cannot be split), golden_source '+degraded'. `truncate` and `corrupt` are shares of the steps,
    `wrong_answer` of the rows. A row's changes depend on seed and row number only. The counts tell how many golden
    answers the reward still accepts. UserError if the accuracy part does not say where an answer is.
    """
    extraction = getattr(config.reward.build()[config.reward.accuracy], "extraction", None)
    if extraction is None:
        raise UserError(f"reward {config.reward.accuracy} does not say where the answer is; degrade needs that")
    try:
        re.compile(step_separator)
    except re.error as error:
        raise UserError(f"--step-separator {step_separator}: not a regular expression: {error}") from None
    columns = columns_of(rows[0], config.data.keys)
    made: list[dict[str, Any]] = []
    counts: dict[str, int] = dict.fromkeys(("without a golden answer", "truncated", "corrupted", "wrong answers"), 0)
    for row in rows:
        golden = columns.golden_answer(row)
        counts["without a golden answer"] += golden is None
        pieces = damage.split(golden, extraction) if golden is not None else None
        text, done = golden, []
        if pieces is not None:
            text, done = _changed(pieces, truncate, corrupt, wrong_answer, step_separator, f"{seed}/{row.number}")
        for name, what in (("truncated", "truncate"), ("corrupted", "corrupt"), ("wrong answers", "wrong_answer")):
            counts[name] += any(d.split(":")[0] == what for d in done)
        origin = row.values.get("golden_source") or ("given" if golden is not None else None)
        source = f"{origin}+degraded" if done else origin
        made.append(row.values | {"golden_answer": text, "golden_source": source, "golden_degraded": done})
    having = [(row, new["golden_answer"]) for row, new in zip(rows, made, strict=True) if new["golden_answer"]]
    counts["still accepted by the reward"] = sum(
        verified([row for row, _ in having], [text for _, text in having], columns, grader)
    )
    return made, counts


def _changed(
    pieces: tuple[str, str, str], truncate: float, corrupt: float, wrong_answer: float, separator: str, key: str
) -> tuple[str, list[str]]:
    """The text of a split golden answer after the changes, and the names of those that changed something."""
    r = random.Random(key)
    body, final, answer = pieces
    done = []
    shorter = damage.truncate(body, separator, truncate)
    if shorter != body:
        body = shorter
        done.append("truncate")
    body, changed = damage.corrupt(body, separator, corrupt, r)
    if changed:
        done.append(f"corrupt:{changed}")
    if r.random() < wrong_answer and (other := damage.wrong(final, answer, r)) is not None:
        final = other
        done.append("wrong_answer")
    return body + final, done
