"""Prompts before they are trained on: lengths, golden answers, what repeats and what contradicts itself."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcpo_mcore.data.dataset import Loaded
from gcpo_mcore.inspection.finding import Finding, Level, ok
from gcpo_mcore.samples import Prompt

COLUMNS = ["source", "prompts", "p50", "p95", "longest", "with golden", "golden p50", "golden longest"]


@dataclass(frozen=True)
class Limits:
    """In tokens: of a prompt and of a response."""

    prompt: int
    response: int


def table(train: Mapping[str, Loaded], held_out: Mapping[str, Loaded]) -> list[dict[str, object]]:
    """A row of figures for each source, in COLUMNS; lengths in tokens."""
    return [_row(name, loaded) for name, loaded in _named(train, held_out).items()]


def _named(train: Mapping[str, Loaded], held_out: Mapping[str, Loaded]) -> dict[str, Loaded]:
    return {f"train, {n}": one for n, one in train.items()} | {f"held out, {n}": one for n, one in held_out.items()}


def _row(name: str, loaded: Loaded) -> dict[str, object]:
    lengths = np.array([len(prompt.token_ids) for prompt in loaded.prompts])
    golden = loaded.prompts.golden_tokens()
    golden = golden[golden > 0]
    of_golden = [int(np.median(golden)), int(golden.max())] if len(golden) else [None, None]
    share = f"{loaded.with_golden / len(lengths):.1%}"
    of_prompts = [len(lengths), int(np.median(lengths)), int(np.percentile(lengths, 95)), int(lengths.max())]
    return dict(zip(COLUMNS, [name, *of_prompts, share, *of_golden], strict=True))


def look(train: Mapping[str, Loaded], held_out: Mapping[str, Loaded], limits: Limits) -> Iterator[Finding]:
    """Findings about the prompts of all sources together."""
    for name, loaded in _named(train, held_out).items():
        yield from _source(name, loaded, limits)
    trained = [prompt for loaded in train.values() for prompt in loaded.prompts]
    yield from repeated(trained)
    for name, loaded in held_out.items():
        yield leaked(name, trained, list(loaded.prompts))


def _source(name: str, loaded: Loaded, limits: Limits) -> Iterator[Finding]:
    if loaded.dropped:
        yield Finding(
            Level.WARNING, name,
            f"{loaded.dropped:,} of {loaded.rows:,} rows are left out: longer than {limits.prompt} tokens",
            "raise data.max_prompt_tokens, or shorten them",
        )  # fmt: skip
    if over := loaded.golden_over(limits.response):
        yield Finding(
            Level.WARNING, name, f"{over:,} golden answers are longer than {limits.response} tokens and are never used",
            "raise rollout.sampling.max_response_tokens, or shorten them (tools/golden.py)",
        )  # fmt: skip


def repeated(prompts: Sequence[Prompt]) -> Iterator[Finding]:
    """Findings about prompts that are there more than once, and with different answers."""
    by_text: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        by_text[" ".join(prompt.text.split())].append(prompt)
    again = [found for found in by_text.values() if len(found) > 1]
    apart = [found for found in again if len({prompt.answer.strip() for prompt in found}) > 1]
    if apart:
        first = apart[0]
        yield Finding(
            Level.PROBLEM, "training prompts", f"{len(apart):,} have different answers in different rows, "
            f"{first[0].id} and {first[1].id} for one ({first[0].answer!r}, {first[1].answer!r})",
            "take out the wrong rows: one of the two answers is rewarded, the other punished",
        )  # fmt: skip
    if again:
        rows = sum(len(found) - 1 for found in again)
        yield Finding(
            Level.WARNING, "training prompts",
            f"{rows:,} rows repeat another, {again[0][0].id} and {again[0][1].id} for one",
            "they count twice; take them out unless that is meant",
        )  # fmt: skip
    else:
        yield ok("training prompts", f"none of {len(prompts):,} repeats")


def leaked(name: str, trained: Sequence[Prompt], held_out: Sequence[Prompt]) -> Finding:
    """Whether held-out prompts are trained on."""
    texts = {" ".join(prompt.text.split()): prompt.id for prompt in trained}
    found = [(prompt, texts[text]) for prompt in held_out if (text := " ".join(prompt.text.split())) in texts]
    if found:
        return Finding(
            Level.PROBLEM, f"held out, {name}", f"{len(found):,} of {len(held_out):,} prompts are trained on, "
            f"{found[0][0].id} is {found[0][1]} for one",
            "take them out of the training data: the accuracy on them says nothing",
        )  # fmt: skip
    return ok(f"held out, {name}", f"none of {len(held_out):,} prompts is trained on")
