"""Rows of a batch as model input: dealt over the data-parallel ranks and cut into micro-batches."""

from dataclasses import dataclass

import torch

from gcpo_mcore.batch import Batch


@dataclass
class MicroBatch:
    """What one forward pass eats. b sequences of s tokens, n response tokens in all.

    tokens     [b, s] prompt + response, zeros on the right
    positions  [b, s]
    source     [n] flat position (in b*s) whose logits predict each response token, row by row
    targets    [n] the response tokens
    rows       the objective's view of the rows (r <= b rows: the rest is filling)
    numbers    the rows' numbers in the whole batch
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    source: torch.Tensor
    targets: torch.Tensor
    rows: Batch
    numbers: list[int]

    def to_rows(self, values: torch.Tensor) -> torch.Tensor:
        """[n] values of response tokens -> [r, T], zeros on padding; differentiable."""
        out = torch.zeros_like(self.rows.mask, dtype=values.dtype)
        return out.masked_scatter(self.rows.mask.bool(), values)


def deal(lengths: list[int], ranks: int) -> list[list[int]]:
    """Row numbers for each data-parallel rank: longest first, in snake order, so that their tokens balance."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for start in range(0, len(order), ranks):
        chunk = order[start : start + ranks]
        for rank, row in zip(
            range(ranks) if (start // ranks) % 2 == 0 else reversed(range(ranks)), chunk, strict=False
        ):
            shares[rank].append(row)
    return shares


def split(
    batch: Batch, rank: int, ranks: int, sequences: int, multiple_of: int, device: torch.device
) -> list[MicroBatch]:
    """The micro-batches of data-parallel `rank` of `ranks`: the same number, of the same shape, on every rank.

    sequences    rows of a micro-batch
    multiple_of  the length of a micro-batch is a multiple of this (sequence parallelism)
    """
    lengths = [len(p) + len(r) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)]
    length = -(-max(lengths) // multiple_of) * multiple_of
    shares = deal(lengths, ranks)
    count = -(-max(len(share) for share in shares) // sequences)
    mine = shares[rank]
    chunks = [mine[i * sequences : (i + 1) * sequences] for i in range(count)]
    return [_micro_batch(batch, numbers, sequences, length, device) for numbers in chunks]


def _micro_batch(batch: Batch, numbers: list[int], sequences: int, length: int, device: torch.device) -> MicroBatch:
    tokens = torch.zeros(sequences, length, dtype=torch.int64)
    source, targets = [], []
    for row, number in enumerate(numbers):
        prompt, response = batch.prompt_ids[number], batch.response_ids[number]
        tokens[row, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        start = row * length + len(prompt) - 1  # the last prompt token predicts the first response token
        source += range(start, start + len(response))
        targets += response
    return MicroBatch(
        tokens=tokens.to(device),
        positions=torch.arange(length, device=device).expand(sequences, length),
        source=torch.tensor(source, dtype=torch.int64, device=device),
        targets=torch.tensor(targets, dtype=torch.int64, device=device),
        rows=batch.take(numbers).to(device),
        numbers=numbers,
    )
