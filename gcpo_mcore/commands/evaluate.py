"""Accuracy of a Hugging Face folder, on held-out data or on published benchmarks:

    python tools/evaluate.py model.path=runs/NAME/hf [data=carry] [evaluation.samples_per_prompt=8 ...]
    python tools/evaluate.py model.path=DIR benchmark=[gsm8k,aime24] [evaluation.beside=[OTHER_DIR]]

Takes the same configuration as tools/train.py and may be started with torchrun to share the prompts out over
processes. It uses transformers and the embedded engine only: nothing of the run that trained the model. Without
`benchmark` it reads data.eval, reward and evaluation. With it, every answer is written below evaluation.folder, a
killed call goes on from there, and results.md and results.json have the tables. docs/evaluation.md has the rest.
"""

import contextlib
import logging
import os

from gcpo_mcore.monitor.run_log import log_to_stderr
from gcpo_mcore.run.load import parse, run_tool

log = logging.getLogger(__name__)


def evaluate_folders(composed) -> None:
    """Measures every folder that a composed configuration names."""
    from gcpo_mcore.base import platform
    from gcpo_mcore.run.setup import process_group

    config = parse(composed)
    measure = on_benchmarks if config.benchmark else on_held_out
    models = _models(config)  # all mistakes before any work
    platform.keep_memory()
    parallel = config.parallel
    with process_group(parallel.threads, config.monitor.phase_deadline_s, products=parallel.cpu_products):
        measure(config, models)


def on_held_out(config, models) -> None:
    """Prints avg@k of every source of data.eval."""
    import torch.distributed as dist

    from gcpo_mcore.evaluation.held_out import evaluate
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.rewarding.grader import Grader
    from gcpo_mcore.rollout.sampler import Sampler

    columns: list[str] = []
    rows = []
    with Grader(config.reward) as grader:
        for folder, (weights, tokenizer, sources) in models.items():
            with _engine(config, folder, tokenizer, weights) as engine:
                metrics = evaluate(Sampler(engine, grader, config.seed), sources, config.evaluation)
            columns = [f"{name.removeprefix('val/')} ({len(sources[name.split('/')[1]].prompts)})" for name in metrics]
            rows.append({"model": folder, **dict(zip(columns, (f"{v:.3f}" for v in metrics.values()), strict=True))})
    if dist.get_rank() == 0:
        sampling = config.evaluation.sampling
        how = "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature}"
        print_results(f"held-out accuracy, {how} (number of problems)", ["model", *columns], rows)


def on_benchmarks(config, models) -> None:
    """Writes records, tables and results of every benchmark."""
    from pathlib import Path

    import torch.distributed as dist

    from gcpo_mcore.evaluation.measure import measure, weights_id
    from gcpo_mcore.evaluation.results import summary, tables, write_results
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.rewarding.grader import Grader
    from gcpo_mcore.rollout.sampler import Sampler

    out, chunk = Path(config.evaluation.folder), config.evaluation.problems_per_chunk
    records: dict[str, dict] = {folder: {} for folder in models}
    for folder, (weights, tokenizer, problems) in models.items():
        with _engine(config, folder, tokenizer, weights) as engine:
            for name, benchmark in config.benchmark.items():
                path = out / folder.strip("./").replace("/", "-") / f"{name}.jsonl"
                with Grader(benchmark.reward) as grader:
                    sampler = Sampler(engine, grader, config.seed)
                    asked = problems[name]
                    records[folder][name] = measure(sampler, name, benchmark, asked, path, weights_id(folder), chunk)
    if dist.get_rank() == 0:
        found = summary(records, config.benchmark)
        write_results(out, found)
        for title, columns, rows in tables(found):
            print_results(title, columns, rows)
        print(f"answers: {out}/MODEL/BENCHMARK.jsonl; tables: {out}/results.md, {out}/results.json")


@contextlib.contextmanager
def _engine(config, folder: str, tokenizer, weights):
    """Builds the engine with the folder's weights."""
    from gcpo_mcore.rollout.engine import FixedWeights
    from gcpo_mcore.run.setup import build_engine

    with contextlib.closing(build_engine(config, folder, tokenizer)) as engine:
        engine.update_weights(FixedWeights(0, lambda: ((name, weights(name)) for name in weights.names())))
        yield engine


def _models(config) -> dict:
    """Every model as {folder: (weights, tokenizer, problems)}, with the benchmarks' problems or data.eval."""
    from gcpo_mcore.actor.hf_mapping import HfWeights
    from gcpo_mcore.base.errors import UserError
    from gcpo_mcore.data.dataset import load_eval
    from gcpo_mcore.evaluation.problems import load_problems
    from gcpo_mcore.hf.hub import local_folder
    from gcpo_mcore.run.plan import load_text

    found = {}
    for folder in map(local_folder, [*config.evaluation.beside, config.model.path]):
        arch, tokenizer, ends = load_text(folder, config.rollout.stop_token_ids)
        if os.environ.get("RANK", "0") == "0":
            log.info("%s: a response ends with %s", folder, ends)
        for name, benchmark in config.benchmark.items():
            longest = benchmark.max_prompt_tokens + benchmark.sampling.max_response_tokens
            if longest > arch.max_positions:
                raise UserError(
                    f"benchmark.{name}: max_prompt_tokens + sampling.max_response_tokens = {longest} is more than the "
                    f"{arch.max_positions} positions of {folder}"
                )
        if config.benchmark:
            problems = {
                name: load_problems(name, b, tokenizer, arch.vocabulary, ends.ids)
                for name, b in config.benchmark.items()
            }
        else:
            problems = load_eval(config.data, tokenizer, arch.vocabulary, ends.ids)
        found[folder] = (HfWeights(folder, arch), tokenizer, problems)
    return found


@log_to_stderr()
def main() -> None:
    """The command."""
    run_tool(evaluate_folders)


if __name__ == "__main__":
    main()
