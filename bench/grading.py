"""Gradings per second, 2 workers of the pool against one bare process: `python bench/grading.py [COUNT]`.

Two loads of COUNT (10,000) different pairs of reference and answer: `mathematics`, where all have to be read,
and `mixed`, where four of five are plain numbers that the reward compares by itself. The bare process calls the reward
in a loop, without pool, deadline or memory limit. Both kinds run twice, in turns; the machine should be idle.
"""

import multiprocessing
import os
import sys
import time

import psutil

from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample

WORKERS = 2
FORMS = [  # reference, answer, right or not; i makes every pair different
    (r"\frac{{{0}}}{{{1}}}", r"\frac{{{0}}}{{{1}}}", True),
    (r"{0}\sqrt{{3}}", r"\sqrt{{3}}\cdot {0}", True),
    (r"x^2+{0}x+{1}", r"{1}+{0}x+x^2", True),
    (r"\{{{0},{1}\}}", r"\{{{1},{0}\}}", True),
    (r"({0},{1})", r"({1},{0})", False),
]


def pairs(load: str, count: int) -> list[tuple[str, str, bool]]:
    """(reference, response, whether it is right)."""
    made = []
    for i in range(count):
        reference, answer, right = FORMS[i // 5 % len(FORMS)] if load == "mixed" else FORMS[i % len(FORMS)]
        if load == "mixed" and i % 5:
            reference, answer, right = "{0}", "{0}" if i % 2 else "{1}", bool(i % 2)
        numbers = i + 2, i + 3
        made.append((reference.format(*numbers), rf"So it is \boxed{{{answer.format(*numbers)}}}.", right))
    return made


def _bare(work, result) -> None:
    reward = load_config(["reward=math_verify"]).reward.build()["math_verify"]
    reward([Answer("", r"\boxed{\frac{1}{2}}", "x+1")])  # imports and grammars, once
    started, cpu = time.monotonic(), time.process_time()
    right = [reward([Answer("", response, reference)])[0] == 1.0 for reference, response, _ in work]
    result.put((time.monotonic() - started, time.process_time() - cpu, right))


def bare(work) -> tuple[float, float, list[bool]]:
    """(wall seconds, cpu seconds, verdicts) of one process."""
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=_bare, args=(work, result))
    process.start()
    found = result.get()
    process.join()
    return found


def pooled(work) -> tuple[float, float, list[bool]]:
    """The same of the pool, as a step of a run uses it."""
    config = load_config(["reward=math_verify", f"reward.workers={WORKERS}", "reward.deadline_s=60"]).reward
    jobs = [(Prompt(str(i), "", "", [], c[0]), Sample(0, [0], c[1])) for i, c in enumerate(work)]
    warm = [(Prompt("w", "", "", [], "x+1"), Sample(i, [0], rf"\boxed{{\frac{{{i}}}{{2}}}}")) for i in range(8)]
    with Grader(config) as grader:
        grader.grade(warm)
        cpu = _cpu_s(grader)
        started = time.monotonic()
        grader.grade(jobs)
        return time.monotonic() - started, _cpu_s(grader) - cpu, [s.is_accurate for _, s in jobs]


def _cpu_s(grader: Grader) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in [os.getpid(), *grader.pool.pids()])


def main(count: int) -> None:
    for load in ("mathematics", "mixed"):
        work = pairs(load, count)
        measured = {"bare": [], "pool": []}
        for _ in range(2):
            for name, run in (("bare", bare), ("pool", pooled)):
                wall, cpu, verdicts = run(work)
                assert verdicts == [right for *_, right in work], f"{load}, {name}: a wrong verdict"
                measured[name].append(count / wall)
                print(f"{load}, {name}: {count / wall:.0f} items/s, {count / cpu:.0f} per cpu second", flush=True)
        ratio = max(measured["pool"]) / max(measured["bare"])
        print(f"{load}: {WORKERS} workers / one bare process = {ratio:.2f} (best of two each)", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
