r"""Rows from CHAMP (the package champ-dataset, MIT): 270 competition problems with solutions written by people.

Mao, Kim, Zhou, CHAMP: A Competition-level Dataset for Fine-Grained Analyses of LLMs' Mathematical Reasoning
Capabilities (arXiv 2401.06961). A row has `prompt`, `answer`, `golden_answer` (the steps, one a line, then the answer
in \boxed{}), `golden_source`, `category` and `steps`, how many there are: a difficulty to order by.
"""

import re
from importlib import import_module
from typing import Any

from gcpo_mcore.base.errors import UserError

# '239', '1/3', '98 values', '900 (i.e., all values)', '3 is the only possible value'
NUMBER = re.compile(r"(-?\d+(?:/\d+)?)(?: [a-z]+| \([^()]*\)| is the only possible value)?")


def make(with_other_answers: bool) -> list[dict[str, Any]]:
    """The problems whose answer is one number; with the others, whose answers are formulas or words, if wanted.

    UserError without the package.
    """
    try:
        champ_dataset = import_module("champ_dataset")
    except ImportError:
        raise UserError("needs the package 'champ-dataset' (pip install 'gcpo-mcore[champ]')") from None
    made = []
    for problem in champ_dataset.load("v0").problems.values():
        number = NUMBER.fullmatch(problem.answer)
        if number or with_other_answers:
            steps = [step.text for step in problem.solution.steps]
            answer = number[1] if number else problem.answer
            made.append(row(problem.text, answer, steps, problem.category, problem.identifier))
    return made


def row(prompt: str, answer: str, steps: list[str], category: str, identifier: str) -> dict[str, Any]:
    """One problem as a row."""
    return {
        "prompt": prompt,
        "answer": answer,
        "golden_answer": "\n".join([*steps, rf"The answer is \boxed{{{answer}}}."]),
        "golden_source": f"champ:{identifier}",
        "category": category,
        "steps": len(steps),
    }
