"""What doctor finds of a machine, of data and of a reward: a remedy for each finding, and the exit code."""

import json

import pytest
from packaging.requirements import Requirement

from gcpo_mcore.inspection import machine, packages
from gcpo_mcore.inspection.finding import Finding, Level, exit_code, told
from tests.jobs import free_port
from tests.launching import launch

BAD = [
    machine.judge_no_cuda(None, has_device=True),
    machine.judge_no_cuda("13.0", has_device=True),
    machine.judge_gpu(0, "H100", free_gib=20.0, total_gib=80.0),
    machine.judge_peers([(0, 4)], 56),
    machine.judge_memory(100.0, 512.0, limit_gib=2.0),
    machine.judge_memory(1.0, 512.0, limit_gib=None),
    machine.judge_port(29500, "torchrun", is_free=False),
    machine.judge_disk(machine.Path("runs"), 1.5),
    machine.judge_shared(0.06, 0.06),
    machine.judge_clock(1000.0, 1090.0),
    machine.judge_files(1024),
    packages.judge_pair("2.13.0+cpu", "0.5.23"),
    packages.judge_pair("2.9.0", None),
]
GOOD = [
    machine.judge_no_cuda("13.0", has_device=False),
    machine.judge_gpu(0, "H100", free_gib=79.0, total_gib=80.0),
    machine.judge_peers([], 56),
    machine.judge_memory(100.0, 512.0, limit_gib=None),
    machine.judge_port(29500, "torchrun", is_free=True),
    machine.judge_disk(machine.Path("runs"), 900.0),
    machine.judge_shared(16.0, 15.0),
    machine.judge_clock(1000.0, 1000.5),
    machine.judge_files(65536),
    packages.judge_pair("2.13.0+cu130", "0.5.20"),
    packages.judge_pair("2.11.0", None),
]


@pytest.mark.parametrize("finding", BAD, ids=lambda finding: finding.subject)
def test_what_is_not_well_has_a_remedy(finding):
    assert finding.level in (Level.WARNING, Level.PROBLEM) and finding.remedy and finding.found


@pytest.mark.parametrize("finding", GOOD, ids=lambda finding: finding.subject)
def test_what_is_well_needs_none(finding):
    assert finding.level in (Level.OK, Level.NOTE) and not finding.remedy


def test_packages_in_other_versions_are_problems_that_pip_can_mend():
    needed = [Requirement("torch>=2.11,<2.14"), Requirement("hydra-core>=1.3"), Requirement("xxhash>=3")]
    found = list(packages.judge_needed(needed, {"torch": "2.15.1", "hydra-core": None, "xxhash": "3.5"}))
    assert [(one.level, one.subject) for one in found] == [(Level.PROBLEM, "torch"), (Level.PROBLEM, "hydra-core")]
    assert found[0].remedy == "pip install 'torch<2.14,>=2.11'" and "not installed" in found[1].found


def test_a_port_that_somebody_has_is_taken():
    import socket

    port = free_port()
    assert machine.is_free(port)
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        assert not machine.is_free(port)


def test_only_problems_change_the_exit_code():
    warning = Finding(Level.WARNING, "a", "b", "c")
    assert exit_code([warning]) == 0 and exit_code([warning, Finding(Level.PROBLEM, "a", "b", "c")]) == 1
    assert told([warning]) == ["warning  a: b", "           -> c"]


def test_doctor_looks_at_this_machine(tmp_path):
    done = launch("tools/doctor.py", "--folder", str(tmp_path / "runs"))
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    subjects = {line[9:].partition(":")[0] for line in lines if not line.startswith(" ")}
    assert {
        "python",
        "torch",
        "packages",
        "torch and SGLang",
        "memory",
        "host name",
        "disk",
        "clock",
        "open files",
    } <= subjects
    assert done.returncode == any(line.startswith("problem") for line in lines)
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        assert line.startswith(("warning", "problem")) == after.startswith(" ")
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def rows(tmp_path_factory, carry):
    """Arguments for a source with doubled, contradicting and overlong rows, of which some are held out too."""
    folder = tmp_path_factory.mktemp("data")
    train = [{"prompt": f"{i}+1?", "answer": str(i + 1), "golden_answer": f"{i}+1={i + 1}:{i + 1}"} for i in range(10)]
    train += [
        train[0],
        {"prompt": "3+1?", "answer": "5"},
        {"prompt": "1" * 50, "answer": "1"},
    ]
    held_out = [train[2], {"prompt": "9+9?", "answer": "18"}]
    for name, made in (("train", train), ("held_out", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return [f"prepared={carry}", f"model.path={carry}/init", "data=files",
            f"data.train.train.path={folder}/train.jsonl", f"data.eval.test.path={folder}/held_out.jsonl",
            "data.max_prompt_tokens=8", "rollout.sampling.max_response_tokens=22"]  # fmt: skip


def test_doctor_looks_at_data(rows):
    done = launch("tools/doctor.py", "data", *rows)
    assert done.returncode == 1, done.stdout + done.stderr
    for words in (
        "warning  train, train: 1 of 13 rows are left out: longer than 8 tokens",
        "problem  training prompts: 1 have different answers in different rows, train:3 and train:11 for one",
        "warning  training prompts: 2 rows repeat another, train:0 and train:10 for one",
        "problem  held out, test: 1 of 2 prompts are trained on, test:0 is train:2 for one",
    ):
        assert words in done.stdout, done.stdout


def test_doctor_tries_a_reward(rows):
    done = launch("tools/doctor.py", "reward", *rows, "--rows", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the golden answer" in done.stdout and "answers a second" in done.stdout and "warning" not in done.stdout
    # The last number of '0+1?' is its answer: a model that repeats the prompt would be paid for it.
    done = launch("tools/doctor.py", "reward", *rows, "reward=numeric", "--rows", "10")
    assert done.returncode == 1 and "problem  the prompt again: 1 of 10 are called right" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["algorithm=gcpo"], "invalid choice: 'algorithm=gcpo' (choose from 'plan', 'data', 'reward')"),
        (["--rows"], "unknown option --rows"),
        (["reward", "--rows", "0"], "--rows 0: needs 1 or more"),
    ],
)
def test_a_mistake_is_told(arguments, words):
    done = launch("tools/doctor.py", *arguments)
    assert done.returncode == 2 and words in done.stderr
