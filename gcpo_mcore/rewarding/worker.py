"""The grading process: `python -m gcpo_mcore.rewarding.worker PIPE_FD PARENT_PID`, started by `pool`.

It reads a pickled RewardConfig, then lists of Answer, and writes one json line per answer at once,
so the pool always knows which answer it is at. Its own words are json, not pickle: a reward that
was tricked into running foreign code must not be able to run it in the trainer as well.
"""

import asyncio
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

from gcpo_mcore.base.parent import end_with_parent
from gcpo_mcore.rewarding.answer import Answer, Reward
from gcpo_mcore.rewarding.composition import fits_float32

OUT_OF_MEMORY = 12  # exit code
MAX_PROBLEM_CHARS = 500


def main(pipe_fd: int, parent_pid: int) -> None:
    """Serves until the pipe closes."""
    end_with_parent(parent_pid)  # of its thread that started this; the pool then starts another
    # The job's signals are the trainer's to handle: it may need grades to end well. Handlers, as what a reward starts
    # would inherit that they are ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    pipe = Connection(pipe_fd)
    try:
        config = pipe.recv()
        rewards = config.build()
        _limit(config.memory_limit_mib)
    except Exception as error:
        _say(pipe, {"ready": False, "problem": _words(error)})
        return
    _say(pipe, {"ready": True})
    while True:
        try:
            answers = pipe.recv()
        except EOFError:
            return
        for graded in grade(rewards, answers):
            _say(pipe, graded)


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


def _say(pipe: Connection, message: dict) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_PROBLEM_CHARS]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
