"""The model of the embedded engine: decoders of the Llama form, from tokens to logits, over a cache that is written in
place.

With transformers' modules most of a token's time goes beside its products, to caches that are joined anew and small
kernels (bench/LOG.md). What a config.json means (sizes, rotary frequencies, experts) is asked of those modules, never
of the actor's reader of it, so that the engine's log-probs still check the actor's.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.tensors import tensors_on_disk
from gcpo_mcore.rollout.cache import Cache
from gcpo_mcore.rollout.decoder_layer import Layer, Target, whole


class Prompts(NamedTuple):
    """Different prompts of one length, which stand next to each other in a row of tokens.

    tokens   their place in that row
    count    how many there are
    rows     the rows of the cache that begin with them
    number   [rows] which of these prompts each of the rows begins with
    """

    tokens: slice
    count: int
    rows: slice
    number: torch.Tensor


class Decoder:
    """Logits of next tokens, from weights that `tensors` says how to fill."""

    def __init__(self, folder: str, dtype: str, device: torch.device):
        model, rotary = _transformers(folder, dtype)
        self.device, self.dtype = device, getattr(torch, dtype)
        self.rotary = rotary.to(device)
        self.rotations = torch.empty(0, device=device)
        self.layers = [Layer(layer, self._empty, device) for layer in model.model.layers]
        self.embedding = self._empty(*model.model.embed_tokens.weight.shape)
        self.norm, self.eps = self._empty(model.model.norm.weight.shape[0]), model.model.norm.variance_epsilon
        is_tied = model.config.tie_word_embeddings
        self.head = self.embedding.t() if is_tied else self._empty(*model.lm_head.weight.shape[::-1])
        self.tensors = dict(self._targets(is_tied))
        if unknown := set(tensors_on_disk(model)) ^ self.tensors.keys():
            raise UserError(f"{folder}: the embedded engine cannot run a model with {sorted(unknown)[0]}")

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _targets(self, is_tied: bool) -> Iterator[tuple[str, Target]]:
        yield "model.embed_tokens.weight", whole(self.embedding)
        for number, layer in enumerate(self.layers):
            for name, target in layer.targets():
                yield f"model.layers.{number}.{name}", target
        yield "model.norm.weight", whole(self.norm)
        if not is_tied:
            yield "lm_head.weight", whole(self.head.t())

    def cache(self, prompt_tokens: torch.Tensor, columns: int) -> Cache:
        """An empty one for prompts of these lengths [rows] and `columns` tokens more."""
        first = self.layers[0]
        return Cache(prompt_tokens, columns, len(self.layers), first.kv_heads, first.head_dim, self.dtype)

    def _rotations(self, count: int) -> torch.Tensor:
        """cos + i sin of positions up to `count` [count, 1, head dimension / 2], computed when there are new ones."""
        if self.rotations.shape[0] < count:
            positions = torch.arange(count, device=self.device).unsqueeze(0)
            cos, sin = (x[0, :, : x.shape[2] // 2] for x in self.rotary(self.norm.float(), positions))
            self.rotations = torch.complex(cos, sin).unsqueeze(1)
        return self.rotations

    def prefill(self, prompts: Sequence[list[int]], copies: Sequence[int], row: int, cache: Cache) -> torch.Tensor:
        """Logits [prompts, v] after different prompts, those of a length next to each other.

        Each begins as many rows of the cache as `copies` says, the first of them at `row`.
        """
        tokens = torch.tensor([i for ids in prompts for i in ids], device=self.device)
        positions = torch.cat([torch.arange(len(ids)) for ids in prompts]).to(self.device)
        runs = list(_runs(prompts, copies, row, self.device))

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(q)
            for run in runs:
                # [prompts, heads, tokens, head dimension]
                mine, keys, values = (t[run.tokens].unflatten(0, (run.count, -1)).transpose(1, 2) for t in (q, k, v))
                cache.put_prompts(layer, run.rows, run.number, keys, values)
                seen = F.scaled_dot_product_attention(mine, keys, values, is_causal=True, enable_gqa=True)
                out[run.tokens] = seen.transpose(1, 2).flatten(0, 1)
            return out.flatten(1)

        ends = torch.tensor([len(ids) for ids in prompts]).cumsum(0) - 1
        rotation = self._rotations(cache.columns)[positions]
        return self._logits(self._run(tokens, rotation, attend)[ends.to(self.device)])

    def step(self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Logits [live, v] after one more token of each live row of the cache; `tokens` and `positions` [live]."""
        bias = cache.bias[: cache.live, ..., : cache.filled + 1]
        attention = _products if self.dtype == torch.float32 else _fused

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return attention(q, *cache.put(layer, k, v), bias)

        x = self._run(tokens, self._rotations(cache.columns)[positions], attend)
        cache.filled += 1
        return self._logits(x)

    def _run(self, tokens: torch.Tensor, rotation: torch.Tensor, attend) -> torch.Tensor:
        """Hidden states [n, hidden] of tokens [n]; `attend` is what a layer's queries, keys and values go to."""
        x = self.embedding[tokens]
        for number, layer in enumerate(self.layers):
            x.addmm_(attend(number, *layer.queries_keys_values(x, rotation)), layer.out)
            layer.add_mlp(x)
        return x

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.norm.shape, self.norm, self.eps) @ self.head


def _transformers(folder: str, dtype: str):
    """transformers' model without memory for its weights, and its rotary embedding."""
    from transformers import AutoConfig, AutoModelForCausalLM  # late: reading a run's configuration comes by here

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False), type(model.model.rotary_emb)(config)


def _runs(prompts: Sequence[list[int]], copies: Sequence[int], row: int, device: torch.device) -> Iterator[Prompts]:
    """The prompts, those of a length that stand next to each other together."""
    token = 0
    for length, run in groupby(zip(prompts, copies, strict=True), key=lambda each: len(each[0])):
        rows = torch.tensor([n for _, n in run])
        number = torch.arange(len(rows)).repeat_interleave(rows).to(device)
        end = token + length * len(rows)
        yield Prompts(slice(token, end), len(rows), slice(row, row + len(number)), number)
        token, row = end, row + len(number)


def _products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention of one query a row [b, heads, d] to keys [b, kv heads, t, d], as two products: [b, heads x d].

    In fp32 on a CPU this is quicker than the fused kernel, which is made for many queries.
    """
    queries = q.reshape(-1, q.shape[1] // k.shape[1], q.shape[2])  # those that share a kv head together
    scores = torch.baddbmm(bias.flatten(0, 1), queries, k.flatten(0, 1).transpose(1, 2), alpha=q.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(2), v.flatten(0, 1)).view(len(q), -1)


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The same by a kernel that keeps scores in fp32."""
    queries = q.reshape(len(q), k.shape[1], -1, q.shape[2])
    return F.scaled_dot_product_attention(queries, k, v, attn_mask=bias).reshape(len(q), -1)
