"""The commands of the README run, in an empty folder, from the first to the last."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.launching import ENVIRONMENT, ROOT

SHORT = ["trainer.steps=2", "trainer.prompts_per_step=4", "evaluation.every_steps=2"]


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_commands_run(carry, tmp_path):
    """Training is cut to two steps, on the untrained model; make targets are looked up (CI runs them whole)."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    shutil.copytree(carry, tmp_path / "prepared/carry-seed0")
    (tmp_path / "prepared/carry-seed0/init").rename(tmp_path / "prepared/carry-seed0/starter")
    ran = 0
    for command in commands():
        words = shlex.split(command)
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
            continue
        launcher = {
            "python": [sys.executable],
            "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
        }[words[0]]
        words = launcher + words[1:]
        trains = "tools/train.py" in words or "tools/ablate.py" in words
        if trains and "--cfg" not in words and "dry_run=true" not in words:
            words += SHORT
        done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        ran += 1
    assert ran == 8
    assert (tmp_path / "exports/my-model/model.safetensors").is_file()
    assert len(list((tmp_path / "runs/ablations").glob("*/report.html"))) == 1


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_documented_metrics_are_written(tmp_path, carry):
    """Every metric of a step is in docs/metrics.md."""
    from gcpo_mcore.monitor.metrics import read_metrics
    from tests.launching import run

    run(
        "tools/train.py",
        f"prepared={carry}",
        f"model.path={carry}/init",
        f"run.folder={tmp_path}",
        "run.name=r",
        *SHORT,
    )
    documented = Path(ROOT / "docs/metrics.md").read_text()
    for name in read_metrics(tmp_path / "r")[-1].keys() - {"step", "time_unix_s"}:
        family = re.sub(r"^val/\w+/avg@\d+$", "val/SOURCE/avg@k", name)
        family = re.sub(r"^time_s/(?!step$)\w+$", "time_s/PHASE", family)
        family = re.sub(r"^memory/\w+_peak_gib$", "memory/PHASE_peak_gib", family)
        last = family.rsplit("/")[-1]
        assert f"`{family}`" in documented or any(
            f"`_{last.split('_', n)[-1]}`" in documented for n in range(1, last.count("_") + 1)
        ), name
