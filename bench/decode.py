"""The embedded engine beside transformers' `generate`, and beside an older engine, as JSON:

    python bench/decode.py --out bench/results/decode_cpu.json [--old CHECKOUT] [--threads 1 2] [--rounds 5]

8 prompts x 8 samples of fixed length on a CPU in fp32, by temperature 1, with the log-prob of each token drawn: random
Qwen2 models of two sizes, each with 1 and 2 threads. Each engine is a process of its own, which stands still while
another works; they take turns. First the engines' log-probs are compared with a whole forward pass of transformers: the
bench stops if they differ. Wall and CPU seconds, median, least and most; where the machine has other work to do, CPU
seconds say more. For this engine also where the time goes, by torch's profiler.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {  # (model, prompt tokens, new tokens)
    "0.6M": ({"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3}, 14, 22),
    "4.7M": ({"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6}, 32, 96),
}
SHARED = {
    "vocab_size": 25, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}  # fmt: skip
PROMPTS, SAMPLES = 8, 8
TOLERANCE = 1e-4  # nats
KINDS = {
    "products with weights": ("aten::mm", "aten::addmm", "aten::addmm_"),
    "attention": ("aten::baddbmm", "aten::bmm", "aten::_softmax", "aten::_scaled_dot_product_flash_attention_for_cpu"),
}


class Work:
    """What every engine is asked for: the model in `folder`, prompts [64, tokens] and how many tokens to make."""

    def __init__(self, folder: str, size: str):
        import torch
        from transformers import AutoModelForCausalLM

        _, prompt_tokens, self.tokens = SIZES[size]
        self.folder = folder
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        prompts = torch.randint(3, SHARED["vocab_size"], (PROMPTS, prompt_tokens), generator=generator)
        self.prompts = prompts.repeat_interleave(SAMPLES, dim=0)

    def difference(self, ids, logp) -> float:
        """The largest from a whole forward pass; response `ids` and their log-probs [64, tokens]."""
        import torch

        with torch.inference_mode():
            logits = self.model(torch.cat([self.prompts, ids], dim=1)).logits[:, self.prompts.shape[1] - 1 : -1]
        return float((logits.log_softmax(-1).gather(2, ids.unsqueeze(2)).squeeze(2) - logp).abs().max())


def embedded(work: Work):
    """The embedded engine of whichever checkout stands first in the path."""
    import numpy as np
    import torch

    from gcpo_mcore.rollout.config import Sampling
    from gcpo_mcore.rollout.embedded import EmbeddedConfig, EmbeddedEngine
    from gcpo_mcore.rollout.engine import FixedWeights, Request
    from gcpo_mcore.samples import Prompt

    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=work.tokens)
    config = EmbeddedConfig(
        engine="embedded", sampling=sampling, sequences_per_batch=len(work.prompts), stop_token_ids=[], max_staleness=0,
        oversampling=1,
    )  # fmt: skip
    engine = EmbeddedEngine(config, work.folder, "float32", [], str)
    engine.update_weights(FixedWeights(0, work.model.named_parameters))
    requests = [Request(Prompt(str(i), "x", "", ids, ""), 0, i) for i, ids in enumerate(work.prompts.tolist())]

    def run():
        samples = engine.generate(requests, sampling)
        ids, logp = np.stack([s.response_ids for s in samples]), np.stack([s.rollout_logp for s in samples])
        return torch.from_numpy(ids).long(), torch.from_numpy(logp)

    return run


def transformers_generate(work: Work):
    """transformers' own loop, with its dynamic cache and sdpa attention."""
    import torch

    settings = {
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0, "eos_token_id": None,
        "max_new_tokens": work.tokens, "output_logits": True, "return_dict_in_generate": True,
    }  # fmt: skip
    attention = torch.ones_like(work.prompts)

    @torch.inference_mode()
    def run():
        out = work.model.generate(work.prompts, attention_mask=attention, **settings)
        ids = out.sequences[:, work.prompts.shape[1] :]
        logp = torch.stack(out.logits, dim=1).log_softmax(-1).gather(2, ids.unsqueeze(2)).squeeze(2)
        return ids, logp

    return run


ENGINES = {"engine": embedded, "old engine": embedded, "transformers": transformers_generate}


def worker(name: str, folder: str, size: str, threads: int) -> None:
    """Answers each line of the standard input with a line of JSON."""
    import torch

    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr
    work = Work(folder, size)
    run = ENGINES[name](work)
    ids, logp = run()
    difference = work.difference(ids, logp)
    for line in sys.stdin:
        if line.strip() == "difference":
            answer = difference
        elif line.strip() == "breakdown":
            answer = breakdown(run)
        else:
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            answer = (time.perf_counter() - wall, time.process_time() - cpu)
        print(json.dumps(answer), file=answers, flush=True)


def breakdown(run) -> dict[str, float]:
    """Shares of the time within kernels, by kind."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(times.values())
    shares = {kind: sum(times.get(name, 0) for name in names) / total for kind, names in KINDS.items()}
    return {kind: round(share, 3) for kind, share in (shares | {"all else": 1 - sum(shares.values())}).items()}


class Contestant:
    """An engine's process."""

    def __init__(self, name: str, checkout: Path, folder: str, size: str, threads: int):
        self.wall, self.cpu = [], []
        command = [sys.executable, __file__, "--worker", name, folder, size, str(threads)]
        settings = {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, env=os.environ | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str):
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def measure(self) -> None:
        wall, cpu = self.ask("run")
        self.wall.append(wall)
        self.cpu.append(cpu)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(checkouts: dict[str, Path], folder: str, size: str, threads: int, rounds: int) -> dict:
    """Every engine's seconds at one size and number of threads."""
    contestants = {name: Contestant(name, path, folder, size, threads) for name, path in checkouts.items()}
    result: dict = {"size": size, "threads": threads, "tokens": PROMPTS * SAMPLES * SIZES[size][2]}
    for name, contestant in contestants.items():
        if (difference := contestant.ask("difference")) > TOLERANCE:
            raise SystemExit(f"{name}: log-probs differ from transformers' by {difference:.1e}")
    for _ in range(rounds):
        for contestant in contestants.values():
            contestant.measure()
    for name, contestant in contestants.items():
        result[name] = {f"{kind}_s": spread(getattr(contestant, kind)) for kind in ("wall", "cpu")}
        if name != "engine":
            ours = contestants["engine"]
            ratios = [
                [theirs / mine for theirs, mine in zip(getattr(contestant, k), getattr(ours, k), strict=True)]
                for k in ("wall", "cpu")
            ]
            result[name] |= {"engine_is_faster_by": spread(ratios[0]), "engine_is_faster_by_cpu": spread(ratios[1])}
    result["engine"]["shares"] = contestants["engine"].ask("breakdown")
    for contestant in contestants.values():
        contestant.close()
    return result


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a checkout whose engine is measured too")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    import torch
    import transformers

    here = Path(__file__).parents[1]
    checkouts = {"engine": here, **({"old engine": args.old} if args.old else {}), "transformers": here}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    found = {
        "commit": commit, "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
        "transformers": transformers.__version__, "cases": [],
    }  # fmt: skip
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            config = transformers.Qwen2Config(**SHARED, **SIZES[size][0])
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            for threads in args.threads:
                found["cases"].append(compare(checkouts, folder, size, threads, args.rounds))
                found["load_average"] = os.getloadavg()
                args.out.write_text(json.dumps(found, indent=1) + "\n")
                print(json.dumps(found["cases"][-1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:5], int(sys.argv[5]))
    else:
        main()
