"""Finds what is wrong with a data set, row by row, with the run's own tokenizer and reward."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.dataset import prompt_from
from gcpo_mcore.data.encoder import Encoder
from gcpo_mcore.data.files import BadRow, Row, sift_rows
from gcpo_mcore.data.shapes import columns_of
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rewarding.references import doubter
from gcpo_mcore.rewarding.thinking import THINK_END, opens_thinking
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.samples import Prompt, Sample

# In the order of the report. A row may have several.
UNUSABLE = "unusable"  # it would stop the run: it cannot be read, or a column is missing, empty, of the wrong type
TOO_LONG = "prompt too long"
DUPLICATE = "duplicate"  # of an earlier row, with the same answer
CONTRADICTION = "contradiction"  # the same prompt as an earlier row, with another answer
ANSWER = "answer rejected"  # the reference answer, written as a response, is not accurate by the run's reward
DOUBT = "answer as text"  # the reward that decides accuracy has a doubt of it: it is compared as text only
GOLDEN = "golden rejected"
GOLDEN_TOO_LONG = "golden too long"
PROBLEMS = (UNUSABLE, TOO_LONG, DUPLICATE, CONTRADICTION, ANSWER, DOUBT, GOLDEN, GOLDEN_TOO_LONG)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, which of PROBLEMS, in words, and the row (None if it could not be read)."""

    source: str
    where: str
    problem: str
    detail: str
    row: dict[str, Any] | None

    def line(self) -> str:
        """The finding as one line of json, for the side file."""
        found = {"where": self.where, "problem": self.problem, "detail": self.detail, "row": self.row}
        return json.dumps(found, default=str)  # ascii: a row may hold what UTF-8 cannot (half a surrogate pair)


@dataclass
class Checked:
    """The counts of one source, and what was found in it."""

    source: str
    shape: str = "-"
    rows: int = 0
    with_golden: int = 0
    findings: list[Finding] = field(default_factory=list)

    def counts(self) -> dict[str, object]:
        """A row of the report: the source, its shape, rows, golden answers, bad rows, and each of PROBLEMS."""
        found = Counter(f.problem for f in self.findings)
        return {
            "source": self.source,
            "shape": self.shape,
            "rows": self.rows,
            "with golden": self.with_golden,
            "bad rows": len({f.where for f in self.findings}),
            **{problem: found[problem] for problem in PROBLEMS},
        }


class Checker:
    """Checks sources one after the other: duplicates are looked for in all of them together.

    `grader` grades with `config.reward`; `tokenizer`, `vocabulary` and `end_ids` are the model's, as in Encoder.
    """

    def __init__(
        self,
        config: RunConfig,
        tokenizer,
        grader: Grader,
        vocabulary: int | None = None,
        end_ids: Collection[int] = (),
    ):
        self.config, self.grader = config, grader
        self.encoder = Encoder(tokenizer, vocabulary, end_ids)
        self._data = config.data.model_copy(update={"overlong_prompts": "drop"})  # then None says that it is too long
        self._seen: dict[str, tuple[str, tuple[str, ...]]] = {}  # prompt text: where it was first, and its answers
        self._doubt = doubter(config.reward)
        self._extraction = getattr(config.reward.build()[config.reward.accuracy], "extraction", None)

    def check(self, source: str, path: str, is_trained: bool = True) -> Checked:
        """Checks all rows of one source, for the curriculum too if it `is_trained` on.

        Never a UserError: a row or a file that cannot be read is a finding.
        """
        rows, bad = sift_rows(path)
        if not rows and not bad:
            bad = [BadRow(path, "there are no rows", None)]
        checked = Checked(source, rows=len(rows) + sum(one.where != path for one in bad))
        checked.findings += [Finding(source, one.where, UNUSABLE, one.problem, one.values) for one in bad]
        if not rows:
            return checked
        try:
            columns = columns_of(rows[0], self._data.keys)
        except UserError as error:
            checked.findings.append(Finding(source, path, UNUSABLE, str(error), None))
            return checked
        checked.shape = columns.shape
        prompts = []
        for row in rows:
            try:
                if is_trained:
                    self._data.curriculum.check(row)
                prompt = prompt_from(row, columns, source, self._data, self.encoder)
            except UserError as error:
                self._find(checked, row, UNUSABLE, str(error).removeprefix(f"{row.where}: "))
                continue
            if prompt is None:
                self._find(checked, row, TOO_LONG, f"over {self._data.max_prompt_tokens} tokens")
                continue
            prompts.append((row, prompt))
            if (doubt := self._doubt(prompt)) is not None:
                self._find(checked, row, DOUBT, f"{prompt.answer[:200]!r}: {doubt}")
            self._compare(checked, row, prompt)
        checked.with_golden = sum(p.golden_ids is not None for _, p in prompts)
        self._grade_answers(checked, prompts)
        self._grade_golden(checked, prompts)
        return checked

    @staticmethod
    def _find(checked: Checked, row: Row, problem: str, detail: str) -> None:
        checked.findings.append(Finding(checked.source, row.where, problem, detail, row.values))

    def _compare(self, checked: Checked, row: Row, prompt: Prompt) -> None:
        """Notes a prompt that an earlier row, of any source, has as well."""
        answers = (prompt.answer, *prompt.other_answers)
        where, earlier = self._seen.setdefault(prompt.text, (row.where, answers))
        if where != row.where:
            same = earlier == answers
            detail = f"as {where}" if same else f"the answer is {answers[0]!r}, in {where} it is {earlier[0]!r}"
            self._find(checked, row, DUPLICATE if same else CONTRADICTION, detail)

    def _grade_answers(self, checked: Checked, prompts: list[tuple[Row, Prompt]]) -> None:
        """Finds reference answers that are not right by themselves, if the reward says where an answer is."""
        if self._extraction is None:
            return
        end = np.array([self.encoder.tokenizer.eos_token_id], np.int32)
        texts = [(row, p, answer) for row, p in prompts for answer in (p.answer, *p.other_answers)]
        wrap = self._extraction.wrap
        pairs = [(p, Sample(0, end, _begun(p) + wrap(answer))) for _, p, answer in texts]
        for (row, _, answer), sample in zip(texts, self._graded(pairs), strict=True):
            if not sample.is_accurate:
                self._find(checked, row, ANSWER, f"{answer[:200]!r}{self._why(sample)}")

    def _grade_golden(self, checked: Checked, prompts: list[tuple[Row, Prompt]]) -> None:
        longest = self.config.rollout.sampling.max_response_tokens
        golden = [(row, p) for row, p in prompts if p.golden_ids is not None]
        pairs = [(p, p.golden_sample()) for _, p in golden]
        for (row, prompt), sample in zip(golden, self._graded(pairs), strict=True):
            tokens = len(sample.response_ids)
            if not sample.is_accurate:
                self._find(checked, row, GOLDEN, f"the answer is {prompt.answer[:200]!r}{self._why(sample)}")
            if tokens > longest:
                self._find(checked, row, GOLDEN_TOO_LONG, f"{tokens} tokens, the limit is {longest}")

    def _graded(self, pairs: list[tuple[Prompt, Sample]]) -> list[Sample]:
        self.grader.grade(pairs)
        return [sample for _, sample in pairs]

    @staticmethod
    def _why(sample: Sample) -> str:
        return f" ({sample.grading_failed} in grading)" if sample.grading_failed else ""


def _begun(prompt: Prompt) -> str:
    """What the shortest response that has an answer begins with: the end of the thinking, if the prompt opens it."""
    return THINK_END if opens_thinking(prompt.text) else ""
