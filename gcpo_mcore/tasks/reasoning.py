"""Rows from reasoning-gym (https://github.com/open-thought/reasoning-gym), about a hundred generators of tasks.

A row has `prompt`, `answer`, `golden_answer` (a worked solution that ends in '#### ANSWER', or null where no solution
follows from the generator's metadata), `golden_source` and `reasoning_gym`: {task, metadata}, which the reward of that
name needs.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from gcpo_mcore.base.errors import UserError, nearest

Metadata = dict[str, Any]


def make(task: str, rows: int, seed: int) -> list[dict[str, Any]]:
    """The first `rows` problems of a task for a seed.

    UserError for an unknown task, for one whose problems have no reference answer, and without the package.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError("needs the package 'reasoning-gym' (pip install 'gcpo-mcore[reasoning]')") from None
    if task not in DATASETS:
        raise UserError(f"reasoning-gym has no task '{task}'{nearest(task, DATASETS)}")
    made = []
    for entry in reasoning_gym.create_dataset(task, size=rows, seed=seed):
        if entry["answer"] is None:
            raise UserError(f"reasoning-gym's {task} has no reference answers; only its own scorer, which is not safe")
        entry = json.loads(json.dumps(entry, default=str))  # as it comes back from a file
        golden = worked(task, entry["metadata"], entry["answer"])
        made.append(
            {
                "prompt": entry["question"],
                "answer": entry["answer"],
                "golden_answer": golden,
                "golden_source": f"reasoning_gym:{task}" if golden else None,
                "reasoning_gym": {"task": task, "metadata": entry["metadata"]},
            }
        )
    return made


def worked(task: str, metadata: Metadata, answer: str) -> str | None:
    """A solution in steps with '#### ANSWER' as its last line; None for a task without one."""
    if task not in SOLUTIONS:
        return None
    return f"{SOLUTIONS[task](metadata)}\n#### {answer}"


def _gsm_symbolic(metadata: Metadata) -> str:
    return metadata["answer_cot"].rpartition("####")[0].strip()


def _chain_sum(metadata: Metadata) -> str:
    """One line for each term: the sum so far."""
    signs = re.findall(r"[+-]?\s*\d+", metadata["expression"])
    first, *others = (int(term.replace(" ", "")) for term in signs)
    lines, total = [], first
    for term in others:
        sign = "+" if term >= 0 else "-"
        lines.append(f"{total} {sign} {abs(term)} = {total + term}")
        total += term
    return "\n".join(lines)


def _euclid(a: int, b: int) -> list[str]:
    lines = []
    while b:
        lines.append(f"{a} = {a // b} * {b} + {a % b}")
        a, b = b, a % b
    return [*lines, f"The last divisor is {a}."]


def _gcd(metadata: Metadata) -> str:
    first, *others = metadata["numbers"]
    lines, so_far = [], first
    for number in others:
        lines += _euclid(max(so_far, number), min(so_far, number))
        so_far = math.gcd(so_far, number)
    return "\n".join(lines)


def _lcm(metadata: Metadata) -> str:
    first, *others = metadata["numbers"]
    lines, so_far = [], first
    for number in others:
        lines += _euclid(max(so_far, number), min(so_far, number))
        divisor, so_far_then = math.gcd(so_far, number), so_far
        so_far = so_far * number // divisor
        lines.append(f"{so_far_then} * {number} / {divisor} = {so_far}")
    return "\n".join(lines)


def _products(metadata: Metadata) -> str:
    """One line for each digit of the second factor, then their sum; further factors the same way."""
    first, *others = (int(n) for n in re.findall(r"-?\d+", metadata["expression"]))
    lines, so_far = [], first
    for factor in others:
        digits = [int(d) * 10**i for i, d in enumerate(reversed(str(abs(factor)))) if d != "0"]
        lines += [f"{so_far} * {part} = {so_far * part}" for part in digits]
        total = " + ".join(str(so_far * part) for part in digits) or "0"
        lines.append(f"{so_far} * {abs(factor)} = {total} = {so_far * abs(factor)}")
        so_far *= factor
    return "\n".join(lines)


def _countdown(metadata: Metadata) -> str:
    return f"{metadata['expression']} = {metadata['target']}"


def _prime_factorization(metadata: Metadata) -> str:
    """One line for each division by the smallest prime that divides; what is left in the end is prime."""
    lines, left = [], metadata["number"]
    for prime in metadata["factors"][:-1]:
        lines.append(f"{left} / {prime} = {left // prime}")
        left //= prime
    return "\n".join([*lines, f"{left} is prime."])


def _fraction_simplification(metadata: Metadata) -> str:
    """Euclid's algorithm, then both parts divided by what it finds."""
    top, bottom = metadata["numerator"], metadata["denominator"]
    divisor = math.gcd(top, bottom)
    lines = _euclid(max(top, bottom), min(top, bottom))
    return "\n".join([*lines, *(f"{part} / {divisor} = {part // divisor}" for part in (top, bottom))])


SOLUTIONS: dict[str, Callable[[Metadata], str]] = {
    "gsm_symbolic": _gsm_symbolic,
    "chain_sum": _chain_sum,
    "gcd": _gcd,
    "lcm": _lcm,
    "products": _products,
    "countdown": _countdown,
    "prime_factorization": _prime_factorization,
    "fraction_simplification": _fraction_simplification,
}
