"""Run by test_export.py: prompt logits and greedy answers of a run's checkpoint, by the Megatron model alone."""

import json
import sys
from pathlib import Path

import torch

from gcpo_mcore.actor.checkpoint import load_weights
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import build_model, start_parallel
from gcpo_mcore.base import platform
from gcpo_mcore.convert.shards import ONE_PROCESS
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.plan import load_tokenizer
from gcpo_mcore.run.setup import process_group


@torch.no_grad()
def main(run: str, prompts: str, out: str) -> None:
    folder = RunFolder(run)
    arch = read_architecture(str(folder.path / "model"))
    tokenizer = load_tokenizer(str(folder.path / "model"), arch)
    layout = check_layout(ONE_PROCESS, arch)
    with process_group(threads=1, deadline_s=900):
        start_parallel(layout, seed=0)
        model = build_model(arch, ONE_PROCESS, layout, torch.float32).eval()
        load_weights([model], folder.newest_good())

        def logits(ids: list[int]) -> torch.Tensor:
            tokens = torch.tensor([ids])
            with platform.megatron():
                return model(tokens, torch.arange(len(ids)).unsqueeze(0), attention_mask=None)[0, :, : arch.vocabulary]

        saved: dict[str, list] = {"answers": [], "logits": []}
        for line in Path(prompts).read_text().splitlines()[:64]:
            ids = tokenizer.encode(json.loads(line)["prompt"])
            saved["logits"].append(logits(ids))
            answer: list[int] = []
            while len(answer) < 22 and (not answer or answer[-1] != tokenizer.eos_token_id):
                answer.append(int(logits(ids + answer)[-1].argmax()))
            saved["answers"].append(answer)
    torch.save(saved, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
