"""How often math_verify agrees with a person, and two others: `python bench/verifier_table.py` writes docs/rewards.md.

It grades tests/rewarding/verifier_cases.jsonl (gold, response, the verdict that a person gives) with
configs/reward/math_verify.yaml, in the worker pool, and puts the result between the markers; likewise, in a table of
its own, how many of the cases Hugging Face's math-verify judges rightly with its defaults, and with the settings and
the fallback on text of TRL's accuracy_reward (https://github.com/huggingface/trl, trl/rewards/accuracy_rewards.py).
"""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "rewarding" / "verifier_cases.jsonl"
DOC = ROOT / "docs" / "rewards.md"
BEGIN, END = "<!-- verifier table: begin -->", "<!-- verifier table: end -->"
OTHERS_BEGIN, OTHERS_END = "<!-- other verifiers: begin -->", "<!-- other verifiers: end -->"


def read_cases() -> list[dict]:
    """Rows of {topic, gold, response, expected}."""
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def graded(cases: list[dict]) -> list[bool | str]:
    """The reward's verdict on each case: accurate or not, or why it could not be graded."""
    pairs = [(Prompt(str(i), "cases", "", [1], c["gold"]), Sample(0, [1], c["response"])) for i, c in enumerate(cases)]
    with Grader(load_config(["reward=math_verify", "reward.deadline_s=60"]).reward) as grader:
        grader.grade(pairs)
    return [sample.grading_failed or sample.is_accurate for _, sample in pairs]


def table(cases: list[dict], verdicts: list[bool | str]) -> str:
    """The Markdown between the markers: counts by topic, then every case that is judged wrongly."""
    missed = [(c, v) for c, v in zip(cases, verdicts, strict=True) if c["expected"] and v is not True]
    taken = [c for c, v in zip(cases, verdicts, strict=True) if not c["expected"] and v is not False]
    lines = ["", "| topic | cases | judged rightly | false negatives | false positives |", "|---|---:|---:|---:|---:|"]
    for topic in dict.fromkeys(c["topic"] for c in cases):
        total = sum(c["topic"] == topic for c in cases)
        negatives, positives = sum(c["topic"] == topic for c, _ in missed), sum(c["topic"] == topic for c in taken)
        lines.append(f"| {topic} | {total} | {total - negatives - positives} | {negatives} | {positives} |")
    right = len(cases) - len(missed) - len(taken)
    lines.append(f"| **all** | **{len(cases)}** | **{right}** | **{len(missed)}** | **{len(taken)}** |")
    lines += ["", "False negatives, right answers that score 0:", "", "| reference | response | |", "|---|---|---|"]
    lines += [f"| {_code(c['gold'])} | {_code(c['response'])} | {v if isinstance(v, str) else ''} |" for c, v in missed]
    lines += ["", "False positives, wrong answers that score 1:", "", "| reference | response |", "|---|---|"]
    lines += [f"| {_code(c['gold'])} | {_code(c['response'])} |" for c in taken]
    return "\n".join([*lines, "", ""])


def by_library_default(gold: str, response: str) -> bool:
    """math-verify as its README calls it: the gold answer in dollar signs, everything else by default."""
    from math_verify import parse, verify

    return verify(parse(f"${gold}$"), parse(response))


def by_trl(gold: str, response: str) -> bool:
    """TRL's accuracy_reward: LaTeX with an anchor, a box first, units off; text if the gold answer does not parse."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    parsed = parse(gold)
    if not parsed:
        return response.strip().lower() == gold.strip().lower()
    form = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    return verify(parsed, parse(response, extraction_config=[form], extraction_mode="first_match"))


OTHERS = {"math-verify, its defaults": by_library_default, "TRL's accuracy_reward": by_trl}


def comparison(cases: list[dict], verdicts: list[bool | str]) -> str:
    """The Markdown of the second table: one line for each verifier."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    lines = [
        "",
        "| verifier | cases | judged rightly | false negatives | false positives |",
        "|---|---:|---:|---:|---:|",
    ]
    lines.append(_line("`math_verify` of this repository", cases, verdicts))
    for name, judge in OTHERS.items():
        lines.append(_line(name, cases, [_judged(judge, c) for c in cases]))
    return "\n".join([*lines, "", ""])


def _judged(judge: Callable[[str, str], bool], case: dict) -> bool:
    try:
        return judge(case["gold"], case["response"])
    except Exception:  # a foreign library's, on odd input: no verdict is no point
        return False


def _line(name: str, cases: list[dict], verdicts: list[bool | str]) -> str:
    negatives = sum(c["expected"] and v is not True for c, v in zip(cases, verdicts, strict=True))
    positives = sum(not c["expected"] and v is not False for c, v in zip(cases, verdicts, strict=True))
    return f"| {name} | {len(cases)} | {len(cases) - negatives - positives} | {negatives} | {positives} |"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _put(text: str, begin: str, end: str, made: str) -> str:
    """The document with `made` between two markers. ValueError if they are missing."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{DOC}: the markers are missing")
    return before + begin + made + end + after


def main() -> int:
    cases = read_cases()
    verdicts = graded(cases)
    made, others = table(cases, verdicts), comparison(cases, verdicts)
    text = _put(DOC.read_text(encoding="utf-8"), BEGIN, END, made)
    DOC.write_text(_put(text, OTHERS_BEGIN, OTHERS_END, others), encoding="utf-8")
    print(made, others)
    return 0


if __name__ == "__main__":
    sys.exit(main())
