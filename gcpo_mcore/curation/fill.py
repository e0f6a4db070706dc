"""Golden answers for the rows of a data set: proposed by a column or a teacher, kept only if the run's reward agrees.

The work is written down row by row in OUT.part: a call that was interrupted goes on from there. OUT itself appears when
all rows are done, whole.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.files import Row, prompt_of
from gcpo_mcore.data.shapes import Columns, columns_of
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.samples import Prompt, Sample

Propose = Callable[[list[Row], Columns], list[list[str]]]  # the candidates of each row
# Rows, the right candidates of each (at least one), where prompt and answer are -> the one to keep for each row.
Choose = Callable[[list[Row], list[list[str]], Columns], list[str]]
KEPT, FILLED, NONE_RIGHT, NO_CANDIDATE = "kept", "filled", "none was right", "no candidate"


def fill(
    rows: list[Row],
    out: Path,
    propose: Propose,
    choose: Choose,
    source: str,
    data: DataConfig,
    grader: Grader,
    parallel: int,
    replace: bool,
    settings: dict[str, Any],
    advance: Callable[[int], object],
    keep_old: bool = False,
) -> dict[str, int]:
    """Writes `rows` to `out` with the columns golden_answer and golden_source; how many rows met which end.

    source    what golden_source says of a new golden answer; one that the row had and the reward accepts is kept, as
              'given' unless the row says more
    parallel  rows proposed for at a time; so many are lost if the call is interrupted
    replace   never keep what the row had
    settings  what the candidates depend on: an OUT.part made with others is refused
    advance   told how many rows are done, in steps
    keep_old  where no candidate is right, what the row had stays, right or not

    Of the candidates that are right, `choose` takes one. UserError for a row that has no prompt or answer.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; choose another name or remove it")
    columns = columns_of(rows[0], data.keys)
    for row in rows:  # all mistakes before any work
        prompt_of(row, columns.prompt)
        columns.answers(row)
    unfinished = out.with_name(f"{out.name}.part")
    done = _read_unfinished(unfinished, _fingerprint(rows, settings))
    advance(len(done))
    waiting = [row for row in rows if row.number not in done]
    with _appending(unfinished) as file:
        if not done and not unfinished.stat().st_size:
            _append(file, {"made from": _fingerprint(rows, settings)})
        for start in range(0, len(waiting), parallel):
            chunk = waiting[start : start + parallel]
            kept = {} if replace else _kept(chunk, columns, grader)
            asked = [row for row in chunk if row.number not in kept]
            proposed = propose(asked, columns)
            made = kept | _best(asked, proposed, columns, grader, choose, source)
            if keep_old:
                made |= {row.number: old for row in asked if (old := _old(row, columns, made[row.number])) is not None}
            for row in chunk:
                done[row.number] = made[row.number]
                _append(file, {"row": row.number, **made[row.number]})
            advance(len(chunk))
    lines = []
    for row in rows:
        golden = {key: done[row.number][key] for key in ("golden_answer", "golden_source")}
        lines.append(json.dumps(row.values | golden, default=str))
    write_atomically(out, "\n".join([*lines, ""]))
    unfinished.unlink()
    return dict(Counter(d["end"] for d in done.values()))


def shortest(rows: list[Row], candidates: list[list[str]], columns: Columns) -> list[str]:
    """The shortest candidate of each row, in characters."""
    return [min(texts, key=len) for texts in candidates]


def verified(rows: list[Row], texts: list[str], columns: Columns, grader: Grader) -> list[bool]:
    """Whether each text, as a response to its row's prompt, is accurate by the reward."""
    pairs = []
    for row, text in zip(rows, texts, strict=True):
        prompt, (answer, *others) = prompt_of(row, columns.prompt), columns.answers(row)
        shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        made = Prompt(str(row.number), "", shown, [], answer, columns=row.values, other_answers=tuple(others))
        pairs.append((made, Sample(0, np.zeros(1, np.int32), text)))
    grader.grade(pairs)
    return [sample.is_accurate for _, sample in pairs]


def _kept(chunk: list[Row], columns: Columns, grader: Grader) -> dict[int, dict]:
    """The rows whose own golden answer is right."""
    having = [(row, text) for row in chunk if (text := columns.golden_answer(row)) is not None]
    right = verified([row for row, _ in having], [text for _, text in having], columns, grader)
    return {
        row.number: _made(text, row.values.get("golden_source") or "given", KEPT)
        for (row, text), is_right in zip(having, right, strict=True)
        if is_right
    }


def _best(
    asked: list[Row],
    proposed: list[list[str]],
    columns: Columns,
    grader: Grader,
    choose: Choose,
    source: str,
) -> dict[int, dict]:
    """The candidate of each row that `choose` takes of those that are right."""
    flat = [(row, text) for row, texts in zip(asked, proposed, strict=True) for text in texts]
    right = verified([row for row, _ in flat], [text for _, text in flat], columns, grader)
    found: dict[int, list[str]] = {}
    for (row, text), is_right in zip(flat, right, strict=True):
        if is_right:
            found.setdefault(row.number, []).append(text)
    solved = [row for row in asked if row.number in found]
    chosen = choose(solved, [found[row.number] for row in solved], columns)
    made = {
        row.number: _made(None, None, NONE_RIGHT if texts else NO_CANDIDATE)
        for row, texts in zip(asked, proposed, strict=True)
    }
    return made | {row.number: _made(text, source, FILLED) for row, text in zip(solved, chosen, strict=True)}


def _old(row: Row, columns: Columns, made: dict) -> dict | None:
    """What a row had, where nothing was made; None where something was, or it had nothing."""
    golden = columns.golden_answer(row)
    if made["golden_answer"] is not None or golden is None:
        return None
    return _made(golden, row.values.get("golden_source") or "given", KEPT)


def _made(golden: str | None, source: str | None, end: str) -> dict:
    return {"golden_answer": golden, "golden_source": source, "end": end}


def _fingerprint(rows: list[Row], settings: dict[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=8)
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _read_unfinished(path: Path, fingerprint: str) -> dict[int, dict]:
    """The rows that an interrupted call has done. A last line that was cut off is cut away."""
    if not path.exists():
        return {}
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    with open(path, "rb+") as file:
        file.truncate(len(whole))
    header, *lines = [json.loads(line) for line in whole.splitlines()] or [{"made from": fingerprint}]
    if header["made from"] != fingerprint:
        raise UserError(f"{path}: was made from other rows or with other settings; remove it to start anew")
    return {line.pop("row"): line for line in lines}


@contextmanager
def _appending(path: Path) -> Iterator[TextIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        yield file


def _append(file: TextIO, line: dict) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()
    os.fsync(file.fileno())
