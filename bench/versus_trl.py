"""GRPO without KL side by side with TRL's GRPOTrainer: the same model, prompts, lengths and reward, as JSON.

    pip install -e .[bench]
    python bench/versus_trl.py --out bench/results/versus_trl.json

Two sizes of random weights, 1 and 2 threads. The two take turns within one run, a process each time; a step is
everything from sampling to the optimizer. Tokens are those of prompts and responses that a step samples and trains on;
responses end at the end token or at the limit, in both. The ratio is ours to TRL's, of the medians of the steps.
TRL has what is fastest on a CPU: its default attention and fused AdamW, no gradient checkpointing, one micro-batch,
a log line only at the end. Ours runs as it does by default; `--ours` adds options to our side.
`limit_tokens_per_s`: what there would be if nothing took time but the products of a step's matrices, each prompt once,
at the rate of a large product measured in the same run.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of the quick start's model, and of one in which matrix products take most of the time.
SIZES = {
    "0.6M": {"hidden": 128, "layers": 3, "intermediate": 384, "vocabulary": 64,
             "prompts": 32, "prompt_tokens": 8, "response_tokens": 22, "steps": 12},
    "4.7M": {"hidden": 256, "layers": 5, "intermediate": 768, "vocabulary": 3072,
             "prompts": 8, "prompt_tokens": 32, "response_tokens": 96, "steps": 5},
}  # fmt: skip
SAMPLES, WARM_UP_STEPS = 8, 2
PATTERN = r"w\d*[02468]\b.*"  # right: the first word is an even one


def make_files(folder: Path, size: dict) -> None:
    """A model of random weights with a tokenizer of whole words, and prompts of random words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<end>", *(f"w{i}" for i in range(size["vocabulary"] - 2))])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size["hidden"], num_hidden_layers=size["layers"], intermediate_size=size["intermediate"],
        vocab_size=size["vocabulary"], num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=256, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    numbers = torch.randint(0, size["vocabulary"] - 2, (512, size["prompt_tokens"])).tolist()
    rows = [{"prompt": " ".join(f"w{n}" for n in row), "answer": "x"} for row in numbers]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def own_options(folder: Path, size: dict, threads: int) -> list[str]:
    """tools/train.py's, for the files of `make_files` in `folder`."""
    return [
        "algorithm=grpo", "algorithm/kl=off", f"model.path={folder}/model", "data=files",
        f"data.train.train.path={folder}/prompts.jsonl", f"data.eval.test.path={folder}/prompts.jsonl",
        "data.eval.test.max_rows=1", "data.chat_template=false", f"run.folder={folder}/runs",
        f"run.name=r{time.time_ns()}", f"trainer.steps={size['steps']}", "trainer.checkpoint_every_steps=0",
        f"trainer.prompts_per_step={size['prompts']}", f"trainer.samples_per_prompt={SAMPLES}",
        f"trainer.sequences_per_microbatch={size['prompts'] * SAMPLES}", "evaluation.every_steps=0",
        "evaluation.at_start=false", f"rollout.sampling.max_response_tokens={size['response_tokens']}",
        "rollout.sequences_per_batch=256", "optimizer.lr=1e-6", f"parallel.threads={threads}", "~reward.parts",
        f"+reward.parts.format={{weight: 1.0, gate: null, settings: {{pattern: '{PATTERN}'}}}}",
        "reward.accuracy=format",
    ]  # fmt: skip


def ours(folder: Path, size: dict, threads: int, more: list[str]) -> dict:
    """Seconds and tokens of each step, and the median seconds of each phase."""
    command = [sys.executable, "tools/train.py", *own_options(folder, size, threads), *more]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"training failed:\n{done.stderr[-4000:]}")
    return own_figures(folder, size)


def own_figures(folder: Path, size: dict) -> dict:
    """Of the newest run in `folder`: seconds and tokens of its later steps, the median seconds of each phase."""
    newest = max((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in (newest / "metrics.jsonl").read_text().splitlines()][WARM_UP_STEPS:]
    prompt_tokens = size["prompts"] * SAMPLES * size["prompt_tokens"]
    phases = sorted({key for line in lines for key in line if key.startswith("time_s/")})
    return {
        "s": [line["time_s/step"] for line in lines],
        "tokens": [line["rollout/tokens"] + prompt_tokens for line in lines],
        "phases_s": {key[7:]: round(statistics.median(line.get(key, 0.0) for line in lines), 4) for key in phases},
    }


def theirs(folder: Path, size: dict, threads: int) -> dict:
    """Seconds and tokens of each step."""
    command = [sys.executable, __file__, "--trl", str(folder), json.dumps(size)]
    done = subprocess.run(command, env=environment(threads), check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: values[WARM_UP_STEPS:] for name, values in found.items()}


def environment(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def train_with_trl(folder: Path, size: dict) -> None:
    """Trains in this process; prints seconds and tokens of each step as JSON."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    seconds, tokens = [], []

    def reward(prompts, completions, completion_ids, **_) -> list[float]:
        tokens.append(sum(map(len, completion_ids)) + len(prompts) * size["prompt_tokens"])
        return [float(bool(re.fullmatch(PATTERN, text.strip(), re.DOTALL))) for text in completions]

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            self.started = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            seconds.append(time.perf_counter() - self.started)

    rows = size["prompts"] * SAMPLES
    arguments = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, per_device_train_batch_size=rows,
        generation_batch_size=rows, num_generations=SAMPLES, max_completion_length=size["response_tokens"],
        beta=0.0, num_iterations=1, temperature=1.0, top_p=1.0, top_k=0, loss_type="grpo", learning_rate=1e-6,
        lr_scheduler_type="constant", max_steps=size["steps"], gradient_checkpointing=False, logging_steps=10_000,
        report_to=[], save_strategy="no", disable_tqdm=True, seed=0,
    )  # fmt: skip
    GRPOTrainer(
        model=str(folder / "model"), args=arguments, reward_funcs=reward,
        processing_class=AutoTokenizer.from_pretrained(folder / "model", padding_side="left"),
        train_dataset=load_dataset("json", data_files=str(folder / "prompts.jsonl"), split="train"),
        callbacks=[Clock()],
    ).train()  # fmt: skip
    print(json.dumps({"s": seconds, "tokens": tokens}))


def product_flops_per_s(threads: int) -> float:
    """Operations per second of a product of two large fp32 matrices: the best of several."""
    code = (
        "import torch, time\na, b = torch.randn(2, 1536, 1536)\nbest = 9e9\n"
        "for _ in range(15):\n s = time.perf_counter()\n a @ b\n best = min(best, time.perf_counter() - s)\n"
        "print(2 * 1536**3 / best)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(threads), check=True, capture_output=True)
    return float(done.stdout)


def limit_tokens_per_s(folder: Path, size: dict, tokens: float, threads: int) -> float:
    """`tokens` of a step by the seconds of its matrix products: one forward pass to sample, three to train."""
    from gcpo_mcore.hf.architecture import read_architecture
    from gcpo_mcore.hf.flops import forward_flops

    arch, prompt = read_architecture(str(folder / "model")), size["prompt_tokens"]
    rows = size["prompts"] * SAMPLES
    each = round(tokens / rows)
    flops = forward_flops(arch, [each] * rows) - forward_flops(arch, [prompt] * (rows - size["prompts"]))
    return tokens / (4 * flops / product_flops_per_s(threads))


def figures(parts: list[dict]) -> dict:
    """Of all steps of the rounds: seconds and tokens/s, the median with the least and the most."""
    seconds = [s for part in parts for s in part["s"]]
    rates = [tokens / s for part in parts for s, tokens in zip(part["s"], part["tokens"], strict=True)]
    spread = {
        name: {"median": statistics.median(v), "min": min(v), "max": max(v)}
        for name, v in (("step_s", seconds), ("tokens_per_s", rates))
    }
    return {
        name: {key: round(value, 4 if name == "step_s" else 0) for key, value in of.items()}
        for name, of in spread.items()
    }


def compare(name: str, threads: int, rounds: int, more: list[str]) -> dict:
    """`rounds` turns of both on one size."""
    size = SIZES[name]
    own, trl = [], []
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), size)
        for _ in range(rounds):
            trl.append(theirs(Path(folder), size, threads))
            own.append(ours(Path(folder), size, threads, more))
        tokens = statistics.mean(n for part in own for n in part["tokens"])
        limit = limit_tokens_per_s(Path(folder), size, tokens, threads)
    result = {"size": name, "threads": threads, "gcpo_mcore": figures(own), "trl": figures(trl)}
    result["limit_tokens_per_s"] = round(limit)
    result["gcpo_mcore"]["phases_s"] = own[-1]["phases_s"]
    of = {who: result[who]["tokens_per_s"]["median"] for who in ("gcpo_mcore", "trl")}
    result["tokens_per_s_ratio"] = round(of["gcpo_mcore"] / of["trl"], 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", nargs="*", default=[], metavar="KEY=VALUE", help="more options of tools/train.py")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--trl", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trl:
        train_with_trl(Path(args.trl[0]), json.loads(args.trl[1]))
        return
    found = []
    for size in args.sizes:
        for threads in args.threads:
            found.append(compare(size, threads, args.rounds, args.ours))
            print(json.dumps(found[-1]), flush=True)
    result = {
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "megatron-core")},
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
        "ours": args.ours,
        "results": found,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
