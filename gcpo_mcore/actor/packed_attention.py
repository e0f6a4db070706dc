"""Causal attention of rows that stand behind each other: one kernel for all of them, side by side, or row by row.

A row has so many queries and at least as many keys; its last query sees all of its keys, the one before all but the
last, and so on. Nothing is computed between two rows. Rows may see the same keys (a prompt that several responses
share), and more keys than they have queries.
"""

import importlib.util
import inspect
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from gcpo_mcore.actor.short_attention import attend

LARGEST_HEAD = 256  # of torch's flash attention
# Rows of unlike sizes are filled up to stand side by side: at most so many scores for one that counts, and so many of a
# batch in all (a mask of one byte each, which torch makes four on a CPU).
FILLING = 1.5
SCORES_PER_BATCH = 2**22


@dataclass(frozen=True)
class SideBySide:
    """R rows filled up on the left to Q queries and K keys.

    queries  [R * Q] where they lie, 0 for filling
    keys     [R * K] likewise
    mask     [R or 1, 1, Q, K] bool, what is seen; None: rows of one size with as many queries as keys
    """

    rows: int
    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True)
class AttentionRows:
    """The rows of a micro-batch: made once, read by every layer.

    sizes   [rows, 2] queries and keys of each row; the queries stand behind each other in this order
    keys    [sum of the rows' keys] where the keys lie; None: behind each other in this order
    """

    sizes: np.ndarray
    keys: np.ndarray | None
    device: torch.device

    @cached_property
    def keys_on_device(self) -> torch.Tensor:
        """[sum of the rows' keys] int64, where the keys lie."""
        assert self.keys is not None
        return torch.from_numpy(self.keys).to(self.device)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Most queries and most keys of a row."""
        queries, keys = self.sizes.max(0).tolist()
        return queries, keys

    @cached_property
    def offsets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """[rows + 1] int32 on the device, twice: where each row's queries and keys begin."""
        queries, keys = torch.from_numpy(_starts(self.sizes).astype(np.int32)).to(self.device).unbind(1)
        return queries.contiguous(), keys.contiguous()

    @cached_property
    def side_by_side(self) -> tuple[list[SideBySide], torch.Tensor]:
        """Batches of rows, and [queries] int64: where each query lies in their results."""
        starts, made, done = _starts(self.sizes), [], 0
        place = np.empty(starts[-1, 0], np.int64)
        for numbers in _alike(self.sizes):
            sizes, first = self.sizes[numbers], starts[numbers]
            queries, is_query = _on_the_right(first[:, 0], sizes[:, 0])
            keys, is_key = _on_the_right(first[:, 1], sizes[:, 1])
            place[queries[is_query]] = done + np.flatnonzero(is_query)
            done += queries.size
            keys = keys if self.keys is None else self.keys[keys]
            mask = _mask(is_query, is_key)
            made.append(
                SideBySide(
                    len(numbers),
                    torch.from_numpy(queries.reshape(-1)).to(self.device),
                    torch.from_numpy(keys.reshape(-1)).to(self.device),
                    None if mask is None else mask.to(self.device),
                )
            )
        return made, torch.from_numpy(place).to(self.device)


def attend_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: AttentionRows, scale: float) -> torch.Tensor:
    """Attends: q [t, heads, head_dim], k and v [u, kv_heads, head_dim] -> [t, heads, head_dim]."""
    has_kernel = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[2] <= LARGEST_HEAD
    return (all_at_once if has_kernel else in_batches)(q, k, v, rows, scale)


def use_flash_attention_3() -> bool:
    """Has torch's flash attention take FlashAttention-3's kernels if their package is here; whether it does."""
    activate = getattr(torch.nn.attention, "activate_flash_attention_impl", None)  # not in every torch that we take
    if activate is None or importlib.util.find_spec("flash_attn_interface") is None:
        return False
    activate("FA3")
    return True


def in_batches(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: AttentionRows, scale: float) -> torch.Tensor:
    """Does `attend_rows` with rows of like sizes side by side: any device and dtype."""
    batches, place = rows.side_by_side
    done = []
    for batch in batches:
        own, key, value = (
            _chosen(x, index).unflatten(0, (batch.rows, -1)).transpose(1, 2)
            for x, index in ((q, batch.queries), (k, batch.keys), (v, batch.keys))
        )
        found = attend(own, key, value, scale, batch.mask)
        done.append(found.transpose(1, 2).flatten(0, 1))
    return _chosen(torch.cat(done), place)


def one_by_one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: AttentionRows, scale: float) -> torch.Tensor:
    """Does `attend_rows` with a call of torch's scaled_dot_product_attention for each row: what the others are
    measured against."""
    k, v = _in_order(k, rows), _in_order(v, rows)
    queries, keys = rows.sizes.T.tolist()
    done = []
    # A batch of one: without it, grouped queries are refused.
    by_row = (x.transpose(0, 1)[None].split(n, dim=2) for x, n in ((q, queries), (k, keys), (v, keys)))
    for own, key, value in zip(*by_row, strict=True):
        is_square = own.shape[2] == key.shape[2]
        mask = None if is_square else causal_lower_right(own.shape[2], key.shape[2])
        done.append(
            F.scaled_dot_product_attention(
                own, key, value, attn_mask=mask, is_causal=is_square, scale=scale, enable_gqa=True
            )[0]
        )
    return torch.cat(done, dim=1).transpose(0, 1)


def all_at_once(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: AttentionRows, scale: float) -> torch.Tensor:
    """Does `attend_rows` with torch's flash attention for rows of different lengths: CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    k, v = _in_order(k, rows), _in_order(v, rows)
    # torch 2.11 takes fewer heads of keys than of queries without being told.
    is_told = "enable_gqa" in inspect.signature(varlen_attn).parameters
    attend = partial(varlen_attn, enable_gqa=True) if is_told else varlen_attn
    # (-1, 0): everything to the left and nothing to the right of the diagonal that ends in the lower right corner.
    found = attend(q, k, v, *rows.offsets, *rows.longest, scale=scale, window_size=(-1, 0))
    assert isinstance(found, torch.Tensor)  # more comes only if it is asked for
    return found


def _in_order(x: torch.Tensor, rows: AttentionRows) -> torch.Tensor:
    """Keys or values behind each other, row by row."""
    return x if rows.keys is None else _chosen(x, rows.keys_on_device)


def _chosen(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x[index]. As an embedding, since the gradient of that is fast on a CPU and the same each time."""
    return F.embedding(index, x.flatten(1)).unflatten(1, x.shape[1:])


def _starts(sizes: np.ndarray) -> np.ndarray:
    """[rows + 1, 2] where each row's queries and keys begin, and the ends."""
    return np.concatenate([np.zeros((1, 2), np.int64), sizes.cumsum(0)])


def _alike(sizes: np.ndarray) -> list[list[int]]:
    """The numbers of the rows in batches, largest first."""
    batches: list[list[int]] = []
    plain = sizes.tolist()
    queries = keys = scores = 0
    for number in np.lexsort((-sizes[:, 0], -sizes[:, 1])).tolist():
        own_queries, own_keys = plain[number]
        wider, own = max(queries, own_queries), own_queries * own_keys
        filled = (len(batches[-1]) + 1) * wider * keys if batches else 0
        if batches and filled <= min(FILLING * (scores + own), SCORES_PER_BATCH):
            batches[-1].append(number)
            queries, scores = wider, scores + own
        else:
            batches.append([number])
            queries, keys, scores = own_queries, own_keys, own
    return batches


def _on_the_right(first: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, longest] the numbers from `first` [R] on, `lengths` [R] many, behind zeros as filling; and what is none."""
    longest = lengths.max()
    own = np.arange(longest)[None] - (longest - lengths)[:, None]
    return np.where(own >= 0, first[:, None] + own, 0), own >= 0


def _mask(is_query: np.ndarray, is_key: np.ndarray) -> torch.Tensor | None:
    """[R or 1, 1, Q, K] what the queries see; those that are filling see something too, so that none sees nothing."""
    queries, keys = is_query.shape[1], is_key.shape[1]
    is_one_size = bool(is_query.all() and is_key.all())
    if is_one_size and queries == keys:
        return None
    causal = np.tri(queries, keys, keys - queries, dtype=bool)
    seen = causal[None] if is_one_size else causal & (is_key[:, None, :] | ~is_query[:, :, None])
    return torch.from_numpy(seen).unsqueeze(1)
