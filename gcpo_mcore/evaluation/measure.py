"""Asks a model the problems of a benchmark and writes down every answer."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist

from gcpo_mcore.base.collectives import from_rank_0
from gcpo_mcore.evaluation.config import Benchmark
from gcpo_mcore.evaluation.estimators import Estimate, average_at, estimate, majority_at, pass_at
from gcpo_mcore.evaluation.records import Records
from gcpo_mcore.hf.reader import weight_files
from gcpo_mcore.monitor.progress import Work
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.thinking import shown_response
from gcpo_mcore.rollout.sampler import Sampler
from gcpo_mcore.samples import Group, Prompt, Sample


def measure(
    sampler: Sampler, name: str, benchmark: Benchmark, prompts: list[Prompt], path: Path, model: str, per_chunk: int
) -> list[dict[str, Any]]:
    """The record of every problem, in order; those that `path` has already are not asked again.

    `model` identifies the weights, `per_chunk` problems are asked at a time and written down together. A collective
    over all ranks; rank 0 writes. The draws of a problem depend on seed, benchmark and problem only.
    """
    settings = {"model": model, "benchmark": name, "seed": sampler.seed, "problems_per_chunk": per_chunk}
    settings |= benchmark.fixed()
    records = Records(path, settings) if dist.get_rank() == 0 else None
    done = from_rank_0(records.done if records else {})
    with Work(f"{name} problems", len(prompts)) if records else nullcontext() as work:
        for first in range(0, len(prompts), per_chunk):
            chunk = prompts[first : first + per_chunk]
            if not all(prompt.id in done for prompt in chunk):
                fragments = sampler.generate(
                    chunk, benchmark.samples_per_problem, benchmark.sampling, f"{name}|{first}"
                )
                sampler.grade(fragments, store=[])
                made = [_record(group, benchmark.reward) for group in sampler.gather(fragments)]
                if records:
                    records.add([record for record in made if record["id"] not in done])
                done |= {record["id"]: record for record in made if record["id"] not in done}
            if work:
                work.advance(len(chunk))
    return [done[prompt.id] for prompt in prompts]


def _record(group: Group[Sample], reward: RewardConfig) -> dict[str, Any]:
    extraction = getattr(reward.build()[reward.accuracy], "extraction", None)
    prompt = group.prompt

    def shown(sample: Sample) -> str:
        return shown_response(prompt.text, sample.response_text, reward.max_response_chars)

    samples = [
        {
            "correct": bool(sample.is_accurate and not sample.truncated),
            "answer": extraction(shown(sample)) if extraction else None,
            "truncated": sample.truncated,
            "tokens": sample.tokens,
            "grading_failed": sample.grading_failed,
            "response": sample.response_text,
        }
        for sample in group.samples
    ]
    return {"id": prompt.id, "prompt": prompt.text, "reference": prompt.answer, "samples": samples}


def figures(records: Sequence[dict[str, Any]], pass_ats: Sequence[int]) -> dict[str, Estimate]:
    """Estimates over problems: avg@k, pass@k, maj@k (k samples; only where answers are found), truncated and tokens."""
    correct = [[sample["correct"] for sample in record["samples"]] for record in records]
    answers = [[sample["answer"] for sample in record["samples"]] for record in records]
    n = len(correct[0])
    found = {f"avg@{n}": estimate([average_at(c) for c in correct])}
    found |= {f"pass@{k}": estimate([pass_at(c, k) for c in correct]) for k in pass_ats}
    if n > 1:
        found[f"maj@{n}"] = estimate([majority_at(a, c) for a, c in zip(answers, correct, strict=True)])
    for key in ("truncated", "tokens"):
        found[key] = estimate([sum(s[key] for s in record["samples"]) / n for record in records])
    return found


def weights_id(folder: str) -> str:
    """A name for a folder's weights: a digest of its config and of the head and tail of every file that has them."""
    digest = hashlib.sha256((Path(folder) / "config.json").read_bytes())
    for path in weight_files(Path(folder)):
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size]).encode())
        with open(path, "rb") as file:
            digest.update(file.read(2**20))
            file.seek(max(0, size - 2**20))
            digest.update(file.read())
    return digest.hexdigest()[:16]
