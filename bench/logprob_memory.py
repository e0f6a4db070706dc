"""Peak memory of log-probs and entropy, forward and backward: chunks of logits against all of them at once.

    python bench/logprob_memory.py [--hidden 64 --logits-per-chunk 4194304]

A process per case. MiB above hidden states and weights, and seconds, for each vocabulary and number of tokens. In
chunks, what grows with the tokens is the hidden states' gradient, and with the vocabulary the weights' gradient.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from gcpo_mcore.actor.logprobs import token_logprobs
from gcpo_mcore.base import platform
from gcpo_mcore.run.setup import process_group

VOCABULARIES, TOKENS = (8_192, 32_768, 131_072), (256, 1024, 2048)


def at_once(hidden, weight, targets):
    """The plain way: every logit in fp32, and its softmax kept for the backward pass."""
    log_p = (hidden @ weight.T).float().log_softmax(1)
    return log_p.gather(1, targets.unsqueeze(1)).squeeze(1), -(log_p.exp() * log_p).sum(1)


def measure(way: str, vocabulary: int, tokens: int, hidden_size: int, logits_per_chunk: int) -> dict:
    """Peak MiB above the inputs and seconds of one case, in this process."""
    with process_group(1, deadline_s=600):
        platform.give_memory_back()
        device = platform.device()
        hidden = torch.randn(tokens, hidden_size, device=device, requires_grad=True)
        weight = torch.randn(vocabulary, hidden_size, device=device, requires_grad=True)
        targets = torch.randint(0, vocabulary, (tokens,), device=device)
        before, start = platform.memory_gib(), time.perf_counter()
        if way == "chunks":
            logp, entropy = token_logprobs(hidden, weight, targets, vocabulary, 1.0, dist.group.WORLD, logits_per_chunk)
        else:
            logp, entropy = at_once(hidden, weight, targets)
        (logp.sum() + entropy.sum()).backward()
        seconds = time.perf_counter() - start
        return {"mib": round((platform.memory_gib() - before) * 1024), "s": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--logits-per-chunk", type=int, default=2**22)
    parser.add_argument("--case", nargs=3, metavar=("WAY", "VOCABULARY", "TOKENS"), help="one case, as a line of JSON")
    args = parser.parse_args()
    sizes = [f"--hidden={args.hidden}", f"--logits-per-chunk={args.logits_per_chunk}"]
    if args.case:
        way, vocabulary, tokens = args.case
        print(json.dumps(measure(way, int(vocabulary), int(tokens), args.hidden, args.logits_per_chunk)))
        return
    print("| vocabulary | tokens | chunks, MiB | at once, MiB | chunks, s | at once, s |\n|---|---|---|---|---|---|")
    for vocabulary in VOCABULARIES:
        for tokens in TOKENS:
            found = []
            for way in ("chunks", "at-once"):
                command = [sys.executable, __file__, *sizes, "--case", way, str(vocabulary), str(tokens)]
                found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            chunks, plain = found
            row = (f"{vocabulary:,}", f"{tokens:,}", chunks["mib"], plain["mib"], chunks["s"], plain["s"])
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
