"""rollout.max_staleness: the next steps' samples are made while this step trains, with the weights before it."""

import itertools
import json
import subprocess
import sys
from collections import Counter

import pytest
from safetensors.torch import load_file

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.kept import unpack
from gcpo_mcore.rollout.sampling import request_seed
from gcpo_mcore.rollout.sglang.replies import SEEDS
from gcpo_mcore.run.load import load_config
from tests.jobs import end, wait_for
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.rollout.test_sglang_faults import servers
from tests.still import Standstill


def overrides(carry, folder, address, *more: str) -> list[str]:
    return [
        "rollout=sglang",
        f'rollout.servers=["{address}"]',
        "rollout.start_servers=0",
        "rollout.transport=disk",
        f"rollout.weights_folder={folder}/weights",
        f"prepared={carry}",
        f"model.path={carry}/init",
        f"run.folder={folder}",
        "run.name=run",
        "trainer.prompts_per_step=4",
        "trainer.samples_per_prompt=2",
        "evaluation.every_steps=0",
        "evaluation.at_start=false",
        *more,
    ]


def versions(folder) -> dict[int, set[int]]:
    """step -> the versions of the weights that its samples were made with."""
    found: dict[int, set[int]] = {}
    for path in (folder / "run/rollouts").iterdir():
        for row in map(json.loads, path.read_text().splitlines()):
            if not row["is_golden"]:
                found.setdefault(row["step"], set()).add(row["weight_version"])
    return found


def test_samples_are_one_version_old_and_a_resumed_run_draws_the_same_prompts(carry, tmp_path):
    with servers(tmp_path, "none") as (one,):
        stale = overrides(carry, tmp_path, one[1], "rollout.max_staleness=1")
        run("tools/train.py", *stale, "trainer.steps=6", "trainer.stop_at_step=4", processes=2)
        assert versions(tmp_path) == {1: {0}, 2: {0}, 3: {1}, 4: {2}}
        run("tools/train.py", *stale, "trainer.steps=6", processes=2)
        # What was under way at the stop is sampled anew, for the same prompts, with the weights of then.
        assert versions(tmp_path) == {1: {0}, 2: {0}, 3: {1}, 4: {2}, 5: {4}, 6: {4}}
        rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        seen = [
            tuple(sorted(json.loads(line)["input_ids"])) for line in (one[0] / "asked.jsonl").read_text().splitlines()
        ]
        assert len(seen) == 6 * 8


def test_two_steps_ahead_samples_are_at_most_two_versions_old(carry, tmp_path):
    with servers(tmp_path, "none") as (one,):
        stale = overrides(carry, tmp_path, one[1], "rollout.max_staleness=2")
        run("tools/train.py", *stale, "trainer.steps=7", "trainer.stop_at_step=5", processes=2)
        assert versions(tmp_path) == {1: {0}, 2: {0}, 3: {0}, 4: {1}, 5: {2}}
        run("tools/train.py", *stale, "trainer.steps=7", processes=2)
        assert versions(tmp_path) == {1: {0}, 2: {0}, 3: {0}, 4: {1}, 5: {2}, 6: {5}, 7: {5}}
        rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
        assert [row["rollout/updates_behind_max"] for row in rows] == [0, 1, 2, 2, 2, 0, 1]
        # Nothing was asked beyond the last step of a launch, and nothing twice.
        assert len((one[0] / "asked.jsonl").read_text().splitlines()) == 7 * 8


@pytest.mark.parametrize("is_partial", [False, True])
def test_what_is_sampled_ahead_is_kept_when_a_run_stops(carry, tmp_path, is_partial):
    """It stops at step 1, when step 2's samples are there, of its requests none is asked again, and the run is to the
    bit the one that never stopped. With parts, of step 3's samples the first tokens are there, and go on."""
    fault, ahead = ("ahead", 2) if is_partial else ("none", 1)
    more = [
        f"rollout.max_staleness={ahead}",
        f"rollout.partial={is_partial}",
        "trainer.steps=4",
        "algorithm/golden=off",
    ]
    with servers(tmp_path, fault) as (one,):
        (one[0] / "ahead.json").write_text(json.dumps(seeds("train|1|ahead|1")))
        still, log = Standstill(tmp_path, "open", "metrics.jsonl"), tmp_path / "log"
        with open(log, "w") as file:
            job = subprocess.Popen(
                [sys.executable, "tools/train.py", *overrides(carry, tmp_path, one[1], *more)],
                cwd=ROOT, env=still.environment(ENVIRONMENT), stdout=file, stderr=file,
            )  # fmt: skip
        try:
            wait_for(still.is_met, [job], log)
            wait_for(lambda: len(asked(one[0])) == (1 + ahead) * 8, [job], log)
            job.terminate()
            still.end()
            assert job.wait() == 75, log.read_text()
        finally:
            end(job)
        before = asked(one[0])
        checkpoint = tmp_path / "run/checkpoints/step_000001"
        kept = unpack((checkpoint / "sampled.safetensors").read_bytes())
        assert [[leftover.is_whole for leftover in of.values()] for of in kept] == (
            [[True] * 8, [False] * 8, []] if is_partial else [[True] * 8, []]
        )
        run("tools/train.py", *overrides(carry, tmp_path, one[1], *more))
        after = asked(one[0])[len(before) :]
    if is_partial:
        begun = Counter(tuple(leftover.sample.response_ids.tolist()) for leftover in kept[1].values())
        assert len(after) == 2 * 8  # the rest of step 3's, and step 4's
        assert Counter(tuple(row["input_ids"][-2:]) for row in after) >= begun
        assert versions(tmp_path)[3] == {0}  # the first token's
        rows = map(json.loads, (tmp_path / "run/rollouts/step_000003.jsonl").read_text().splitlines())
        assert {tuple(row["token_versions"]) for row in rows} == {(0, 0, 1, 1, 1, 1)}
        return
    assert len(before) + len(after) == 4 * 8
    whole = tmp_path / "whole"
    whole.mkdir()
    with servers(whole, "none") as (one,):
        run("tools/train.py", *overrides(carry, whole, one[1], *more))
    assert versions(tmp_path) == versions(whole) == {1: {0}, 2: {0}, 3: {1}, 4: {2}}
    for name in (f"rollouts/step_{step:06d}.jsonl" for step in range(1, 5)):
        assert (tmp_path / "run" / name).read_text() == (whole / "run" / name).read_text()
    mine, theirs = (load_file(folder / "run/hf/model.safetensors") for folder in (tmp_path, whole))
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def asked(server) -> list[dict]:
    """What a server was asked to generate."""
    file = server / "asked.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def seeds(occasion: str) -> list[int]:
    """Of every response that could be sampled on that occasion: whatever 4 prompts of the carry task, twice each."""
    prompts = [f"{source}:{row}" for source in ("easy", "hard") for row in range(8001)]
    return [
        request_seed(occasion, 0, place, prompt, index) % SEEDS
        for prompt, place, index in itertools.product(prompts, range(4), range(2))
    ]


@pytest.mark.parametrize("partial", [False, True])
def test_new_weights_reach_responses_that_are_under_way(carry, tmp_path, partial):
    """Without parts the server ends what it is at before it gets them; with parts responses go on under them."""
    with servers(tmp_path, "ahead" if partial else "slow") as (one,):
        # Step 3's, begun with the weights before the first update: under way when the next ones come.
        (one[0] / "ahead.json").write_text(json.dumps(seeds("train|1|ahead|1")))
        run(
            "tools/train.py",
            *overrides(carry, tmp_path, one[1], "rollout.max_staleness=2"),
            "rollout.requests_per_server=4",
            "algorithm/golden=off",  # all samples stay in their groups
            f"rollout.partial={partial}",
            "trainer.steps=5",
            processes=2,
        )
    rows = [json.loads(line) for path in (tmp_path / "run/rollouts").iterdir() for line in path.open()]
    sampled = [row for row in rows if not row["is_golden"]]
    assert len({(row["step"], row["prompt_id"], row["index"]) for row in sampled}) == 5 * 8
    for row in sampled:
        told = row.get("token_versions", [row["weight_version"]] * row["tokens"])
        assert len(told) == row["tokens"] and told == sorted(told)
        assert row["step"] - 3 <= told[0] <= told[-1] <= row["step"] - 1
    assert any("token_versions" in row for row in sampled) == partial
    asked = (one[0] / "asked.jsonl").read_text().splitlines()
    assert (len(asked) == 5 * 8) == (not partial)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(line["rollout/sent_again"] for line in lines) == 0
    assert (sum(line["rollout/continued"] for line in lines) > 0) == partial


def test_what_oversampling_drops_comes_first_in_the_next_step(carry, tmp_path):
    with servers(tmp_path, "held", "none") as (held, fast):
        # One request at a time: prompts become whole one after the other, all of them at the second server.
        both = overrides(carry, tmp_path, f'{held[1]}","{fast[1]}', "rollout.oversampling=2", "trainer.steps=3")
        run("tools/train.py", *both, "rollout.requests_per_server=1", "trainer.stop_at_step=2")
        run("tools/train.py", *both, "rollout.requests_per_server=1", processes=2)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["rollout/prompts_given_back"] for line in lines] == [4, 4, 4]
    trained, begun = [], []
    for step in (1, 2, 3):
        rows = map(json.loads, next((tmp_path / "run/rollouts").glob(f"*{step}.jsonl")).read_text().splitlines())
        groups = [row["prompt_id"] for row in rows if not row["is_golden"]]
        assert len(set(groups)) == 4
        trained.append(set(groups))
    for place in (held[0], fast[0]):
        asked = [json.loads(line) for line in (place / "asked.jsonl").read_text().splitlines()]
        begun += [tuple(row["input_ids"]) for row in asked]
    assert not trained[0] & trained[1] and not trained[1] & trained[2]
    # 8 prompts, then the 4 that were left and 4 new ones, twice: 16 in all, where 24 were begun.
    assert len(set(begun)) <= 16


def test_a_run_that_fails_in_between_ends_with_one_line(carry, tmp_path):
    with servers(tmp_path, "none") as (one,):
        stale = overrides(carry, tmp_path, one[1], "rollout.max_staleness=1")
        run("tools/train.py", *stale, "trainer.steps=4", "trainer.stop_at_step=2")
    done = launch("tools/train.py", *stale, "trainer.steps=4")  # the server is gone
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == f"error: rollout: no SGLang server is left of {one[1]}"
    assert (tmp_path / "run/checkpoints/step_000002/manifest.json").is_file()


def test_older_weights_are_corrected_for_by_default():
    for older in ("rollout.max_staleness=1", "rollout.max_staleness=2 rollout.partial=true"):
        older = ["rollout=sglang", *older.split()]
        assert load_config(older).algorithm.mismatch.name == "tis"
        assert load_config([*older, "algorithm/mismatch=icepop"]).algorithm.mismatch.name == "mask"
        assert load_config([*older, "rollout.uncorrected=true"]).algorithm.mismatch.name == "off"
    assert load_config(["rollout=sglang"]).algorithm.mismatch.name == "off"


def test_staleness_wants_an_engine_of_other_processes():
    with pytest.raises(UserError, match=r"rollout\.partial=true goes on with what rollout\.oversampling above"):
        load_config(["rollout=sglang", "rollout.partial=true", "algorithm/mismatch=tis"])
    load_config(["rollout=sglang", "rollout.max_staleness=1", "algorithm/mismatch=tis"])
    with pytest.raises(UserError, match=r"rollout.max_staleness=1: the embedded engine works in the training process"):
        load_config(["rollout.max_staleness=1", "algorithm/mismatch=tis"])
    load_config(["rollout=sglang", "rollout.partial=true", "rollout.max_staleness=2", "algorithm/mismatch=tis"])
    with pytest.raises(UserError, match=r"rollout.max_staleness=2 samples while the actor trains"):
        load_config(
            ["rollout=sglang", "rollout.max_staleness=2", "rollout.memory_saver=true", "algorithm/mismatch=tis"]
        )
