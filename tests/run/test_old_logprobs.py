"""Log-probs before an update: from a pass of their own, from the update itself, or from the engine: the same run."""

import itertools

import pytest
from safetensors.torch import load_file

from gcpo_mcore.monitor.metrics import read_metrics
from tests.launching import launch, run

TRAIN = "tools/train.py"
# Golden rows among sampled ones, a correction over whole rows, and a layout in which not all ranks have the log-probs.
CASES = {
    "gcpo": ((), 1),
    "gcpo tis": (("algorithm/mismatch=tis", "algorithm.mismatch.level=sequence"), 1),
    "grpo kl packed": (("algorithm=grpo", "algorithm/golden=always", "trainer.tokens_per_microbatch=90"), 1),
    "gcpo mis, three stages": (("algorithm/mismatch=mis", "parallel.pipeline=3"), 3),
}


def train(carry, folder, name, *more, processes=1):
    """Exported weights and the lines of metrics of three steps."""
    run(
        TRAIN, f"prepared={carry}", f"model.path={carry}/init", f"run.folder={folder}", f"run.name={name}",
        "trainer.steps=3", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4",
        "trainer.sequences_per_microbatch=6", "trainer.checkpoint_every_steps=0",
        "evaluation.every_steps=0", "evaluation.at_start=false", *more, processes=processes,
    )  # fmt: skip
    return load_file(folder / name / "hf/model.safetensors"), [*read_metrics(folder / name)]


def learned(line: dict) -> dict:
    cost = ("time", "perf", "memory", "grading/seconds", "cost/scored_tokens", "cost/tokens")
    return {k: v for k, v in line.items() if not k.startswith(cost)}


@pytest.fixture(params=CASES, scope="module")
def runs(request, carry, tmp_path_factory):
    """The same run with each source of old log-probs."""
    options, processes = CASES[request.param]
    folder = tmp_path_factory.mktemp("old")
    sources = ["auto", "score"] + ["rollout"] * ("mismatch" not in str(options))
    return {
        source: train(carry, folder, source, *options, f"trainer.old_logp={source}", processes=processes)
        for source in sources
    }


def test_the_updates_own_are_those_of_a_pass_before_it(runs):
    (weights, lines), (expected, expected_lines) = runs["auto"], runs["score"]
    assert [*map(learned, lines)] == [*map(learned, expected_lines)]
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_the_pass_is_left_out(runs):
    """No figures tell of a pass that was not run; grpo's reference is scored all the same."""
    is_scored = {source: ["perf/score_gflops_per_device" in line for line in runs[source][1]] for source in runs}
    has_reference = runs["auto"][1][-1]["actor/kl_ref_loss"] > 0
    assert is_scored["score"] == [True] * 3
    assert is_scored["auto"] == [has_reference] * 3
    for own, scored in zip(runs["auto"][1], runs["score"][1], strict=True):
        passes = scored["cost/scored_tokens"] / scored["cost/trained_tokens"]
        assert passes == (2 if has_reference else 1)
        assert own["cost/scored_tokens"] == (passes - 1) * scored["cost/trained_tokens"]


def test_the_engines_are_nearly_those(runs):
    if "rollout" not in runs:
        return
    for own, engines in itertools.zip_longest(runs["auto"][1], runs["rollout"][1]):
        assert engines["actor/loss"] == pytest.approx(own["actor/loss"], abs=1e-4)
        assert engines["actor/grad_norm"] == pytest.approx(own["actor/grad_norm"], rel=1e-3)
        assert 0 < engines["mismatch/logp_abs_diff_max"] < 1e-4  # measured all the same


@pytest.mark.parametrize("needs", ["trainer.updates_per_step=2", "algorithm/kl=k1_reward"])
def test_who_reads_them_earlier_gets_the_pass(carry, tmp_path, needs):
    lines = train(carry, tmp_path, "r", needs, "trainer.old_logp=auto")[1]
    assert all("perf/score_tokens_per_s_per_device" in line for line in lines)


def test_a_correction_of_nothing_is_refused(carry):
    options = ["trainer.old_logp=rollout", "algorithm/mismatch=tis"]
    done = launch(TRAIN, f"prepared={carry}", f"model.path={carry}/init", *options)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: trainer.old_logp=rollout")
