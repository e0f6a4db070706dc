"""What the help pages of the commands on Hydra say: the command, what it does, how it is called, what can be chosen."""

import importlib

import pytest

from tests.config.composed import ROOT, choices, run


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_the_command_and_shows_examples_and_choices(command, flag):
    done = run([str(ROOT / f"tools/{command}.py"), flag])
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith(f"usage: {command}.py [group=option ...] [key=value ...]\n")
    assert importlib.import_module(f"gcpo_mcore.commands.{command}").__doc__.strip() in done.stdout
    assert f"    python tools/{command}.py " in done.stdout
    assert f"algorithm/golden: {', '.join(choices('algorithm/golden'))}\n" in done.stdout
    assert "\ntrainer:\n  steps: 120\n" in done.stdout and "powered by Hydra" not in done.stdout


@pytest.mark.parametrize("command", sorted(file.stem for file in (ROOT / "tools").glob("*.py")))
def test_every_command_says_how_it_is_called_and_shows_examples(command):
    page = run([str(ROOT / f"tools/{command}.py"), "--help"])
    assert page.returncode == 0 and page.stdout.startswith(f"usage: {command}.py "), page.stderr
    assert f"    python tools/{command}.py" in page.stdout


@pytest.mark.parametrize(
    ("command", "part"),
    [("convert", "to-hf"), ("golden", "fill"), ("golden", "degrade"), ("doctor", "plan"), ("doctor", "reward")],
)
def test_the_parts_of_a_command_show_their_own_examples(command, part):
    page = run([str(ROOT / f"tools/{command}.py"), part, "--help"]).stdout
    examples = [line for line in page.splitlines() if line.startswith(f"    python tools/{command}.py ")]
    assert examples and all(f" {part} " in line for line in examples)


def test_help_shows_the_keys_of_the_choices_that_are_given():
    done = run([str(ROOT / "tools/train.py"), "algorithm/golden=off", "trainer.steps=7", "--help"])
    assert "\n  golden:\n    name: 'off'\n" in done.stdout and "\ntrainer:\n  steps: 7\n" in done.stdout


def test_the_script_of_an_installed_package_names_itself(tmp_path):
    script = tmp_path / "gcpo-train"
    script.write_text("from gcpo_mcore.commands.train import main\nmain()\n")
    page = run([str(script), "--help"]).stdout
    assert page.startswith("usage: gcpo-train ")
    assert "    torchrun --nproc-per-node 8 -m gcpo_mcore.commands.train model=" in page
    assert "    gcpo-train algorithm=grpo " in page and "tools/train.py" not in page


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--hydra-help"], "--info,-i"),
        (["--cfg", "job", "run.name=20261126_1"], "name: '20261126_1'"),  # and not the number that this is for yaml
        (["--cfg", "hydra"], "name: evaluate\n"),
        (["--cfg", "all", "--resolve"], "usage: evaluate.py"),
        (["--info", "defaults-tree"], "algorithm/golden: all_wrong"),
        (["--info", "all"], "Config search path"),
        (["--version"], "Hydra"),
    ],
)
def test_pages_of_hydra(flags, words):
    done = run([str(ROOT / "tools/evaluate.py"), *flags])
    assert done.returncode == 0 and words in done.stdout + done.stderr and "Traceback" not in done.stderr, done


def test_a_mistake_beside_help_is_one_line():
    done = run([str(ROOT / "tools/train.py"), "--help", "algorithm=gcp"])
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: algorithm=gcp: unknown choice (nearest: gcpo)")
