"""Accuracy of a Hugging Face folder on held-out data:

    python tools/evaluate.py model.path=runs/NAME/hf [data=carry] [evaluation.samples_per_prompt=8 ...]

Takes the same configuration as tools/train.py (data.eval, reward and evaluation are what it reads) and may be
started with torchrun to share the prompts out over processes. It uses transformers and the embedded engine only:
nothing of the run that trained the model.
"""

from gcpo_mcore.config.load import parse, run_tool


def main(composed) -> None:
    import contextlib

    import torch.distributed as dist

    from gcpo_mcore.evaluation import evaluate
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.rewarding.grader import Grader
    from gcpo_mcore.rollout.sampler import Sampler
    from gcpo_mcore.setup import build_engine, process_group

    config = parse(composed)
    folders = [*config.evaluation.beside, config.model.path]
    models = {folder: _check(folder, config.data) for folder in folders}  # all mistakes before any work
    columns: list[str] = []
    rows = []
    with process_group(config.parallel.threads, config.monitor.phase_deadline_s), Grader(config.reward) as grader:
        for folder, (weights, tokenizer, sources) in models.items():
            with contextlib.closing(build_engine(config, folder, tokenizer)) as engine:
                engine.update_weights(((name, weights(name)) for name in weights.names()), version=0)
                metrics = evaluate(Sampler(engine, grader, config.seed), sources, config.evaluation)
            columns = [f"{name.removeprefix('val/')} ({len(sources[name.split('/')[1]].prompts)})" for name in metrics]
            rows.append({"model": folder, **dict(zip(columns, (f"{v:.3f}" for v in metrics.values()), strict=True))})
        if dist.get_rank() == 0:
            sampling = config.evaluation.sampling
            how = "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature}"
            print_results(f"held-out accuracy, {how} (number of problems)", ["model", *columns], rows)


def _check(folder: str, data):
    """Weights, tokenizer and tokenised data of one model folder."""
    from gcpo_mcore.actor.architecture import read_architecture
    from gcpo_mcore.actor.hf_mapping import HfWeights
    from gcpo_mcore.data.dataset import load_eval
    from gcpo_mcore.plan import load_tokenizer

    arch = read_architecture(folder)
    tokenizer = load_tokenizer(folder, arch)
    return HfWeights(folder, arch), tokenizer, load_eval(data, tokenizer)


if __name__ == "__main__":
    run_tool(main)
