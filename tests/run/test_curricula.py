"""A curriculum in a run: what it passes over comes from the checkpoint's history, on one process or two."""

import json

from gcpo_mcore.monitor.metrics import read_metrics
from tests.launching import run


def test_a_run_with_a_curriculum_resumes_on_two_processes(carry, tmp_path):
    """Ten prompts, four a step: in step 3 begins the second epoch, where what was sampled in step 1 or 2 is passed
    over (solved_at 0: every prompt that was sampled counts as solved)."""
    lines = (carry / "train_easy.jsonl").read_text().splitlines()[:200]
    rows = list({json.loads(line)["prompt"]: line for line in lines}.values())[:10]
    (tmp_path / "ten.jsonl").write_text("".join(line + "\n" for line in rows))

    def options(folder, *more):
        return [
            f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path / folder}", "run.name=r",
            "trainer.steps=4", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=2",
            f"data.train.easy.path={tmp_path}/ten.jsonl", "data.train.hard.weight=0", "evaluation.every_steps=0",
            "evaluation.at_start=false", "data/curriculum=drop_solved", "data.curriculum.solved_at=0", *more,
        ]  # fmt: skip

    def seen(folder):
        """The prompts of each step, and how many were passed over."""
        prompts = [
            [json.loads(line)["prompt_id"] for line in path.read_text().splitlines()]
            for path in sorted((tmp_path / folder / "r/rollouts").glob("*.jsonl"))
        ]
        return prompts, [line["groups/skipped"] for line in read_metrics(tmp_path / folder / "r")]

    run("tools/train.py", *options("whole"))
    run("tools/train.py", *options("parts", "trainer.stop_at_step=2"))
    run("tools/train.py", *options("parts"), processes=2)
    assert seen("parts") == seen("whole")
    prompts, skipped = seen("whole")
    assert skipped[:2] == [0, 0] and skipped[2] > 0
    assert len({id for step in prompts[:3] for id in step}) == 10
