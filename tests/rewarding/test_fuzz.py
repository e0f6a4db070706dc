"""2,000 hostile and odd answers through the real pool: each ends within its deadline, and nothing is left behind."""

import math
import os

import psutil

from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample
from tests.launching import live_processes
from tests.rewarding.hostile import BACKTRACKS, answers

TOTAL, N_COSTLY, DEADLINE_S = 2000, 12, 2.0


def config() -> RewardConfig:
    """Every built-in part that reads the text of an answer, in one reward."""
    tree = load_config(["reward=math_verify_overlong"]).reward.model_dump(mode="json")
    numeric = load_config(["reward=numeric"]).reward.model_dump(mode="json")
    form = load_config(["reward=math_verify"]).reward.model_dump(mode="json")
    tree["parts"] |= {"numeric": numeric["parts"]["numeric"], "format": form["parts"]["format"]}
    tree["parts"]["format"]["settings"]["pattern"] = BACKTRACKS
    return RewardConfig.model_validate(tree | {"deadline_s": DEADLINE_S, "failed_score": -9.0})


def used_mib(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def test_hostile_answers_end_and_leave_nothing():
    me = psutil.Process()
    prompt = Prompt("p", "s", "how much?", [1], "0.53")
    made = list(answers(TOTAL, N_COSTLY, seed=0))
    assert len({text for _, text in made}) == TOTAL
    work = [(prompt, Sample(i, [1], text)) for i, (_, text) in enumerate(made)]
    files, memory_mib = os.listdir("/proc/self/fd"), []
    with Grader(config()) as grader:
        for start in range(0, TOTAL, TOTAL // 4):
            grader.grade(work[start : start + TOTAL // 4])
            memory_mib.append(used_mib(me))
            children = live_processes()
            assert sorted(p.pid for p in children) == sorted(grader.pool.pids()) and len(children) == 2
            assert all(used_mib(p) < 600 for p in children)
    assert live_processes() == []
    assert len(os.listdir("/proc/self/fd")) == len(files)
    assert memory_mib[-1] - memory_mib[0] < 32
    assert 5 <= sum(s.grading_failed != "" for _, s in work) <= TOTAL // 10  # it is hostile, and most of it in vain
    assert all(math.isfinite(s.reward) for _, s in work)
    assert not any(s.is_accurate for _, s in work), "one of them equals 0.53"
