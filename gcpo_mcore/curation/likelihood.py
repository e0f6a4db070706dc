"""The choice, among several right answers, of the one that a policy would most likely write itself."""

from collections.abc import Collection

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.dataset import golden_text, render
from gcpo_mcore.data.encoder import Encoder
from gcpo_mcore.data.files import Row
from gcpo_mcore.data.shapes import GOLDEN, Columns

TOKENS_PER_BATCH = 4096  # padding included; the logits are this times the vocabulary


class Policy:
    """The model in a Hugging Face folder, in the dtype it was saved in, on the GPU if there is one.

    `tokenizer` is the folder's, `end_ids` end its responses. UserError if transformers cannot load the model.
    """

    def __init__(self, folder: str, tokenizer, data: DataConfig, end_ids: Collection[int] = ()):
        self.data = data
        model = _loaded(folder)
        self.vocabulary: int = getattr(model.config, "vocab_size")  # noqa: B009 - the families' configs have it, their base not
        self.encoder = Encoder(tokenizer, self.vocabulary, end_ids)
        self.max_positions = getattr(model.config, "max_position_embeddings", None) or float("inf")
        self.model = torch.nn.Module.to(model, platform.device())  # its own `to` hides what it takes

    def choose(self, rows: list[Row], candidates: list[list[str]], columns: Columns) -> list[str]:
        """The candidate of each row with the highest mean log-prob per token, as a golden answer to its prompt.

        The tokens are those that training would use: prompt after the template, answer, end token.
        """
        pairs = [
            self._tokens(row, columns, text) for row, texts in zip(rows, candidates, strict=True) for text in texts
        ]
        scores = iter(self.mean_logp(pairs))
        return [max(texts, key=lambda _: next(scores)) for texts in candidates]

    def _tokens(self, row: Row, columns: Columns, text: str) -> tuple[list[int], list[int]]:
        """(prompt ids, response ids)."""
        prompt = render(row, columns.prompt, self.data, self.encoder)
        return prompt.ids, golden_text(row, columns, self.data, self.encoder, prompt, text, GOLDEN).ids

    @torch.inference_mode()
    def mean_logp(self, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
        """The mean over the response of its tokens' log-probs at temperature 1, for each (prompt ids, response ids).

        -inf for a pair with more tokens than the model has positions.
        """
        device = platform.device()
        lengths = [len(prompt) + len(response) for prompt, response in pairs]
        found = [float("-inf")] * len(pairs)
        fitting = sorted(
            (i for i, length in enumerate(lengths) if length <= self.max_positions), key=lengths.__getitem__
        )
        while fitting:
            longest = lengths[fitting[-1]]
            taken = max(1, TOKENS_PER_BATCH // longest)
            batch, fitting = fitting[-taken:], fitting[:-taken]
            ids = torch.zeros(len(batch), longest, dtype=torch.long)  # right padding: the mask hides it
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                prompt, response = pairs[i]
                ids[row, : lengths[i]] = torch.tensor(prompt + response)
                mask[row, : lengths[i]] = 1
            logits = self.model(ids.to(device), attention_mask=mask.to(device)).logits
            for row, i in enumerate(batch):
                prompt, response = pairs[i]
                logp = logits[row, len(prompt) - 1 : lengths[i] - 1].float().log_softmax(-1)
                targets = torch.tensor(response, device=logp.device)
                found[i] = logp.gather(-1, targets[:, None]).mean().item()
        return found


def _loaded(folder: str) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: transformers cannot load it: {str(error).splitlines()[0]}") from None
