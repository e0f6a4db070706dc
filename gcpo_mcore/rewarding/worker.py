"""The grading process: `python -m gcpo_mcore.rewarding.worker DESCRIPTOR PARENT_PID`, started by `pool`.

It reads an Orders, then lists of (index, Answer), and writes one json line per answer at once, with the index, so the
pool always knows which answer it is at. Its own words are json, not pickle: a reward that was tricked into running
foreign code must not be able to run it in the trainer as well.

The kernel ends it when an answer has taken its CPU time: a machine that is busy elsewhere does not bring that nearer.
"""

import asyncio
import inspect
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence

from gcpo_mcore.base.parent import end_with_parent
from gcpo_mcore.rewarding.answer import Answer, Reward
from gcpo_mcore.rewarding.channel import WorkerEnd
from gcpo_mcore.rewarding.composition import fits_float32
from gcpo_mcore.rewarding.confinement import leave_network
from gcpo_mcore.rewarding.orders import OUT_OF_MEMORY, OUT_OF_TIME, Orders

MAX_PROBLEM_CHARS = 500


def main(descriptor: int, parent_pid: int) -> None:
    """Serves until the pool closes its end."""
    end_with_parent(parent_pid)  # of its thread that started this; the pool then starts another
    # The job's signals are the trainer's to handle: it may need grades to end well. Handlers, as what a reward starts
    # would inherit that they are ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    pool = WorkerEnd(descriptor)
    orders: Orders = pool.get()
    pool.word = orders.word
    try:
        kept = "" if orders.network == "keep" else leave_network()  # before an import may start a thread
        if kept and orders.network == "must leave":
            raise PermissionError(f"reward.network=deny: the network cannot be taken away here: {kept}")
        rewards = orders.config.build()
        _limit(orders.config.memory_limit_mib)
    except Exception as error:
        pool.put({"ready": False, "problem": _words(error)})
        return
    pool.put({"ready": True, "kept_network": kept})
    while True:
        try:
            numbered = pool.get()
        except EOFError:
            return
        for graded in _timed(rewards, numbered, orders.config.deadline_s):
            pool.put(graded)


def _timed(rewards: dict[str, Reward], numbered: Sequence[tuple[int, Answer]], deadline_s: float) -> Iterator[dict]:
    """`grade`, each grade with the index of its answer, and this process's end for one that takes `deadline_s` of CPU
    time, in whatever code it is."""
    signal.signal(OUT_OF_TIME, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, deadline_s)
    for (index, _), graded in zip(numbered, grade(rewards, [answer for _, answer in numbered]), strict=True):
        yield {"index": index, **graded}
        signal.setitimer(signal.ITIMER_PROF, deadline_s)
    signal.setitimer(signal.ITIMER_PROF, 0)


def grade(rewards: dict[str, Reward], answers: list[Answer]) -> Iterator[dict]:
    """Of each answer {'scores': {part: score}}, or {'problem': text} if a part raised or gave what float32 cannot hold.

    Parts that wait (async) wait for all answers at once; the others score one answer after the other.
    """
    waiting = [name for name, reward in rewards.items() if is_async(reward)]
    if not waiting:
        for answer in answers:
            yield _graded(rewards, answer, {}, None)
        return
    loop = asyncio.new_event_loop()
    tasks = [{name: loop.create_task(_awaited(rewards[name], answer)) for name in waiting} for answer in answers]
    for answer, of_answer in zip(answers, tasks, strict=True):
        yield _graded(rewards, answer, of_answer, loop)
    loop.close()


def is_async(reward: Reward) -> bool:
    """Whether a call of it has to be awaited."""
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)


async def _awaited(reward: Reward, answer: Answer) -> list[float]:
    scores = reward([answer])
    return await scores if inspect.isawaitable(scores) else scores


def _graded(rewards: dict[str, Reward], answer: Answer, tasks: dict[str, asyncio.Task], loop) -> dict:
    scores = {}
    for name, reward in rewards.items():
        try:
            (score,) = loop.run_until_complete(tasks[name]) if name in tasks else reward([answer])
            scores[name] = float(score)
            if not fits_float32(scores[name]):
                raise ValueError(f"the score is {scores[name]:g}, which float32 cannot hold")
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # what is left of this process cannot be trusted
        except Exception as error:
            return {"problem": f"{name}: {_words(error)}"}
    return {"scores": scores}


def _limit(memory_limit_mib: int) -> None:
    """Caps the address space, and leaves no core file behind."""
    size = memory_limit_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_PROBLEM_CHARS]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
