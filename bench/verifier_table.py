"""How often math_verify agrees with a person: `python bench/verifier_table.py` writes the table in docs/rewards.md.

It grades tests/rewarding/verifier_cases.jsonl (gold, response, the verdict that a person gives) with
configs/reward/math_verify.yaml, in the worker pool, and puts the result between the markers.
"""

import json
import sys
from pathlib import Path

from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "rewarding" / "verifier_cases.jsonl"
DOC = ROOT / "docs" / "rewards.md"
BEGIN, END = "<!-- verifier table: begin -->", "<!-- verifier table: end -->"


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


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def main() -> int:
    before, begin, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        print(f"{DOC}: the markers are missing", file=sys.stderr)
        return 1
    cases = read_cases()
    made = table(cases, graded(cases))
    DOC.write_text(before + BEGIN + made + END + after, encoding="utf-8")
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
