"""What a run says is on stderr and in the log of the rank that said it, once in each."""

from tests.launching import launch


def test_warnings_of_a_run_and_of_its_plan(carry, tmp_path):
    """Real ones: an export that fails, as the folder of model files is empty; then, on resume, a damaged checkpoint."""
    (tmp_path / "r/model").mkdir(parents=True)
    command = [
        "tools/train.py", "algorithm=gcpo", f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}",
        "run.name=r", "trainer.steps=3", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4",
        "trainer.checkpoint_every_steps=1", "evaluation.every_steps=0", "evaluation.at_start=false", "data.eval={}",
    ]  # fmt: skip
    first = launch(*command, "trainer.hf_every_steps=2", "trainer.stop_at_step=2", processes=2)
    assert first.returncode == 0, first.stderr
    next((tmp_path / "r/checkpoints/step_000002/shards").glob("*.distcp")).write_bytes(b"torn")
    second = launch(*command, "trainer.stop_at_step=2", processes=2)
    assert second.returncode == 0, second.stderr

    logs = [(tmp_path / f"r/logs/rank_0000{rank}.log").read_text() for rank in range(2)]
    export = f"the export of step 2 failed (exit 2); see {tmp_path}/r/logs/hf_export.log"
    assert first.stderr.splitlines().count(export) == 1
    assert [log.count(f" WARNING {export}\n") for log in logs] == [1, 0]
    damaged = f"checkpoint {tmp_path}/r/checkpoints/step_000002 is left out: shards/"
    # Rank 0 alone looks for a checkpoint.
    assert [line.startswith(damaged) for line in second.stderr.splitlines() if damaged in line] == [True]
    assert [sum(f" WARNING {damaged}" in line for line in log.splitlines()) for log in logs] == [1, 0]
    for log in logs:
        assert log.count("start at step 0 of 3") == 1 and log.count("start at step 1 of 3") == 1
    assert first.stderr.count("step 1/3  reward") == logs[0].count("step 1/3  reward") == 1
    assert "steps: 1 done, 3 in all" in logs[0] and "reward" not in logs[1]
