"""tools/evaluate.py benchmark=[...] from end to end, on small made-up files in the benchmarks' shapes."""

import json
import math
import re
import statistics
from itertools import combinations
from pathlib import Path

import pytest

from gcpo_mcore.run.load import CONFIGS, load_config
from tests.launching import launch, run

SMALL = ["prompt='{problem}'", "max_prompt_tokens=30", "sampling.max_response_tokens=22"]


@pytest.fixture(scope="module")
def models(carry, tmp_path_factory) -> tuple[Path, Path]:
    """A model after 60 supervised steps on easy sums, and the untrained one."""
    folder = tmp_path_factory.mktemp("models")
    run(
        "tools/train.py", "experiment=carry_warmup", f"prepared={carry}", f"run.folder={folder}", "run.name=r",
        "trainer.steps=60", "optimizer.lr=5e-3",
    )  # fmt: skip
    return folder / "r/hf", carry / "init"


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Path:
    """gsm8k.jsonl and amc23.parquet: sums, in those benchmarks' columns."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("problems")
    sums = [(a, b) for a in range(0, 10, 3) for b in range(10)]
    rows = [{"question": f"{a}+{b}?", "answer": f"add them: {a}+{b}\n#### {a + b}"} for a, b in sums]
    (folder / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"id": str(i), "question": f"{a}+{b}?", "answer": float(a + b)} for i, (a, b) in enumerate(sums[:10])]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "amc23.parquet")
    return folder


def options(problems: Path, out: Path, *more: str) -> list[str]:
    """The command line for both benchmarks, made small."""
    made = ["benchmark=[gsm8k,amc23]", f"evaluation.benchmarks={problems}", f"evaluation.folder={out}"]
    for name in ("gsm8k", "amc23"):
        settings = f"benchmark.{name}.reward.parts.math_verify.settings.extraction"
        made += [f"benchmark.{name}.{option}" for option in SMALL]  # the tiny model answers 'working:answer'
        made += [f"{settings}.name=after_last", f"+{settings}.marker=':'"]
    made += ["benchmark.amc23.samples_per_problem=6", "benchmark.amc23.pass_at=[1,3]"]
    return [*made, "evaluation.problems_per_chunk=8", *more]


@pytest.fixture(scope="module")
def evaluated(models, problems, tmp_path_factory) -> tuple[Path, str]:
    """The output folder of one call for both models, and what it printed."""
    out = tmp_path_factory.mktemp("out") / "evaluations"
    trained, untrained = models
    printed = run(
        "tools/evaluate.py", f"model.path={trained}", f"evaluation.beside=[{untrained}]", *options(problems, out)
    )
    return out, printed


def records_of(out: Path, model: Path, benchmark: str) -> list[dict]:
    path = out / str(model).strip("./").replace("/", "-") / f"{benchmark}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def is_right(record: dict, sample: dict) -> bool:
    """Graded anew, by hand: the number after the last colon."""
    found = re.fullmatch(r".*:\s*([+-]?\d+)\s*", sample["response"], flags=re.DOTALL)
    return bool(found) and not sample["truncated"] and float(found[1]) == float(record["reference"])


def test_records_hold_every_answer_graded_right(evaluated, models):
    out, _ = evaluated
    right = 0
    for model in models:
        for benchmark, problems, samples in (("gsm8k", 40, 1), ("amc23", 10, 6)):
            records = records_of(out, model, benchmark)
            assert [r["id"] for r in records] == [f"{benchmark}:{i}" for i in range(problems)]
            for record in records:
                a, b = map(int, record["prompt"].rstrip("?").split("+"))
                assert float(record["reference"]) == a + b and len(record["samples"]) == samples
                for sample in record["samples"]:
                    assert sample["correct"] is is_right(record, sample), sample
                    right += sample["correct"]
    assert right > 20  # the comparison sees both kinds


def test_figures_by_brute_force(evaluated, models):
    out, _ = evaluated
    found = json.loads((out / "results.json").read_text())["benchmarks"]
    averages = {}
    for benchmark, ks in (("gsm8k", [1]), ("amc23", [1, 3])):
        for model in models:
            records = records_of(out, model, benchmark)
            verdicts = [[is_right(r, s) for s in r["samples"]] for r in records]
            n = len(verdicts[0])
            figures = found[benchmark]["figures"][str(model)]
            per_problem = [sum(v) / n for v in verdicts]
            averages[benchmark, model] = per_problem
            check(figures[f"avg@{n}"], per_problem)
            for k in ks:
                subsets = [[any(s) for s in combinations(v, k)] for v in verdicts]
                check(figures[f"pass@{k}"], [sum(s) / len(s) for s in subsets])
            check(figures["truncated"], [sum(s["truncated"] for s in r["samples"]) / n for r in records])
            check(figures["tokens"], [sum(s["tokens"] for s in r["samples"]) / n for r in records])
            assert ("maj@6" in figures) == (benchmark == "amc23")
        trained, untrained = models
        (difference,) = found[benchmark]["differences"].values()
        pairs = zip(averages[benchmark, trained], averages[benchmark, untrained], strict=True)
        check(difference, [a - b for a, b in pairs])
    assert found["gsm8k"]["figures"][str(trained)]["avg@1"]["mean"] > 0.1


def check(value: dict, per_problem: list[float]) -> None:
    assert value["mean"] == pytest.approx(statistics.mean(per_problem))
    assert value["standard_error"] == pytest.approx(statistics.stdev(per_problem) / math.sqrt(len(per_problem)))


def test_tables(evaluated, models):
    out, printed = evaluated
    markdown = (out / "results.md").read_text()
    assert "| model | avg@1 | pass@1 | truncated | tokens |" in markdown
    assert "| model | avg@6 | pass@1 | pass@3 | maj@6 | truncated | tokens |" in markdown
    assert "gsm8k: pass@1, greedy, zero-shot" in markdown and "huggingface.co/datasets/openai/gsm8k" in markdown
    mean = json.loads((out / "results.json").read_text())["benchmarks"]["gsm8k"]["figures"][str(models[0])]["avg@1"]
    shown = f"{100 * mean['mean']:.1f} ± {100 * mean['standard_error']:.1f}"
    assert shown in markdown and shown in printed
    assert "differences of the mean accuracy" in printed


def test_killed_call_goes_on_and_processes_do_not_matter(evaluated, models, problems, tmp_path):
    """What is left of a killed call, half a line at the end, is completed by two processes to the same bytes."""
    out, _ = evaluated
    name = str(models[0]).strip("./").replace("/", "-")
    whole = (out / name / "amc23.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / name).mkdir()
    (tmp_path / name / "amc23.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:50])
    run("tools/evaluate.py", f"model.path={models[0]}", *options(problems, tmp_path), processes=2)
    assert (tmp_path / name / "amc23.jsonl").read_bytes() == whole
    assert (tmp_path / name / "gsm8k.jsonl").read_bytes() == (out / name / "gsm8k.jsonl").read_bytes()


def refused(*arguments: str) -> str:
    done = launch("tools/evaluate.py", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_other_settings_are_not_mixed_in(evaluated, models, problems):
    out, _ = evaluated
    line = refused(
        f"model.path={models[0]}", *options(problems, out), "benchmark.gsm8k.sampling.max_response_tokens=20"
    )
    assert "gsm8k.jsonl was made with another sampling" in line and "evaluation.folder" in line


def test_problems_that_are_not_there(models, problems, tmp_path):
    line = refused(f"model.path={models[0]}", *options(tmp_path, tmp_path))
    if "could not be fetched" not in line:  # with the datasets package there, and no network
        assert "pip install datasets" in line and "columns question, answer" in line
    assert f"{tmp_path}/gsm8k.jsonl" in line and "https://huggingface.co/datasets/openai/gsm8k (main, test)" in line


def test_bad_rows_and_contradictions(models, problems, tmp_path):
    (tmp_path / "gsm8k.jsonl").write_text(
        '{"question": "1+1?", "answer": "#### 2"}\n{"question": "1+1?", "answer": "2"}\n'
    )
    arguments = [f"model.path={models[0]}", *options(tmp_path, tmp_path), "benchmark=[gsm8k]"]
    arguments = [a for a in arguments if "amc23" not in a or a.startswith("benchmark=[gsm8k]")]
    assert "gsm8k.jsonl, line 2: 'answer' has no '####'" in refused(*arguments)
    (tmp_path / "gsm8k.jsonl").write_text('{"qestion": "1+1?", "answer": "#### 2"}\n')
    assert "line 1: there is no 'question' (nearest: qestion)" in refused(*arguments)
    assert "is more than the 128 positions" in refused(*arguments, "benchmark.gsm8k.max_prompt_tokens=120")
    assert "pass_at=4 is more than samples_per_problem=1" in refused(*arguments, "benchmark.gsm8k.pass_at=[4]")
    assert "benchmark=gsm9k: unknown choice (nearest: gsm8k)" in refused("benchmark=[gsm9k]")


def test_every_benchmark_states_protocol_and_source():
    names = sorted(path.stem for path in (CONFIGS / "benchmark").glob("*.yaml"))
    assert {"gsm8k", "math500", "aime24", "aime25", "amc23", "olympiadbench", "mathqa", "mawps", "hmmt25"} <= set(names)
    config = load_config([f"benchmark=[{','.join(names)}]"])
    for name in names:
        benchmark = config.benchmark[name]
        assert benchmark.protocol and benchmark.source.startswith("https://") and name in benchmark.path
        assert benchmark.reward.accuracy_threshold == 1.0
