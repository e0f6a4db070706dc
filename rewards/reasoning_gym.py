"""1.0 if the extracted answer solves the row's reasoning-gym problem, else 0.0. Never a part mark.

The package's own scorers are not for text that a model wrote: some evaluate it (countdown was seen to run a shell
command from an answer), others give part marks for junk. So an answer counts

1. if it is the reference, character by character, or the same number (84/2 is a sum to do, not a number);
2. for countdown and puzzle24, if our own arithmetic, which runs nothing, says that it is a solution;
3. for the tasks in VETTED, which have many right answers, if the package's scorer gives it full marks. Nothing in the
   modules of these tasks evaluates text, opens files or imports sympy (tests/rewarding/test_reasoning_gym.py looks).

Rows come from `tools/prepare.py reasoning`: the column `reasoning_gym` holds {task, metadata}.
"""

import functools

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.arithmetic import evaluate
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.numbers import read_number

COLUMN = "reasoning_gym"
VETTED = (
    "cryptarithm",
    "futoshiki",
    "jugs",
    "kakurasu",
    "knight_swap",
    "palindrome_generation",
    "palindrome_partitioning",
    "quantum_lock",
    "shortest_path",
    "sokoban",
    "survo",
    "tower_of_hanoi",
)


@rewards.register
class ReasoningGym(Config):
    """extraction: where the answer is in the response. KeyError, so not graded, for a row of another origin."""

    extraction: Extraction

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        problem = answer.columns[COLUMN]
        given = self.extraction(answer.response_text)
        if given is None:
            return 0.0
        return float(_is_reference(given, answer.reference) or _is_solution(given, answer.reference, problem))


def _is_reference(given: str, reference: str) -> bool:
    if given.strip() == reference.strip():
        return True
    left, right = (None if "/" in text else read_number(text) for text in (reference, given))
    return left is not None and left == right


def _is_solution(given: str, reference: str, problem: dict) -> bool:
    task, metadata = problem["task"], problem["metadata"]
    if task in ("countdown", "puzzle24"):
        found = evaluate(given)
        wanted = metadata.get("target", 24)
        return found is not None and found[0] == wanted and sorted(found[1]) == sorted(metadata["numbers"])
    if task not in VETTED:
        return False
    entry = {"answer": reference, "metadata": metadata}
    try:
        return _dataset(task).score_answer(given, entry) == 1.0
    except Exception:  # a scorer that stumbles over the form of an answer: it is none
        return False


@functools.cache
def _dataset(task: str):
    import reasoning_gym  # slow to import, and most answers are decided without

    return reasoning_gym.create_dataset(task, size=1, seed=0)
