"""The one mapping between Megatron shards and Hugging Face tensors.

Used by weight sync and Hugging Face export (`export`) and, inverted, by loading (`load`). A rule says
which Hugging Face tensors make up one Megatron parameter and how they are cut over the tensor group:

    qkv       [q; k; v], grouped by kv head: each kv head's queries, its key, its value; cut by groups
    gate_up   [gate; up]: each cut in rows, a rank holds its gate rows, then its up rows
    columns   cut along dimension 1 (row-parallel linear)
    vocab     cut in rows, padded with zeros to a multiple of the tensor group
    whole     every rank holds all of it

Experts are dealt over the expert group in order: of 8 experts, rank 1 of 2 holds 4 to 7. They are not cut over the
tensor group.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import xxhash
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import set_tensor_model_parallel_attributes
from megatron.core.transformer.transformer_layer import TransformerLayer

from gcpo_mcore.actor import groups
from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.reader import FolderReader, same_values
from gcpo_mcore.hf.tensors import check_finite

ADAPTER = "adapter"  # the module beside a linear layer that is not one of the folder's (actor/adapter.py)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Computed, not learnt: older versions of transformers wrote them, and later ones leave them out without a word.
BUFFERS = re.compile(r"\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.position_ids$|\.masked_bias$")


@dataclass(frozen=True)
class Rule:
    """One Megatron parameter: its Hugging Face names ('{i}' the layer's, '{e}' the expert's number) and its cut."""

    hf_names: tuple[str, ...]
    cut: str


def rules(arch: Architecture) -> dict[str, Rule]:
    """Megatron name ('{i}' for the layer's and '{e}' for the expert's global number, from 0) -> rule."""
    hf, mc = "model.layers.{i}.", "decoder.layers.{i}."
    attention = hf + "self_attn."
    mlp, mc_mlp = hf + "mlp.", mc + "mlp."
    if arch.experts:
        mlp, mc_mlp = hf + "mlp.experts.{e}.", mc + "mlp.experts.local_experts.{e}."
    table = {
        "embedding.word_embeddings.weight": Rule(("model.embed_tokens.weight",), "vocab"),
        mc + "input_layernorm.weight": Rule((hf + "input_layernorm.weight",), "whole"),
        mc + "self_attention.linear_qkv.weight": Rule(tuple(attention + f"{x}_proj.weight" for x in "qkv"), "qkv"),
        mc + "self_attention.linear_proj.weight": Rule((attention + "o_proj.weight",), "columns"),
        mc + "pre_mlp_layernorm.weight": Rule((hf + "post_attention_layernorm.weight",), "whole"),
        mc_mlp + "linear_fc1.weight": Rule((mlp + "gate_proj.weight", mlp + "up_proj.weight"), "gate_up"),
        mc_mlp + "linear_fc2.weight": Rule((mlp + "down_proj.weight",), "columns"),
        "decoder.final_layernorm.weight": Rule(("model.norm.weight",), "whole"),
    }
    if not arch.experts:  # Transformer Engine's linear layers hold the norms that stand before them
        table[mc + "self_attention.linear_qkv.layer_norm_weight"] = table[mc + "input_layernorm.weight"]
        table[mc + "mlp.linear_fc1.layer_norm_weight"] = table[mc + "pre_mlp_layernorm.weight"]
    if arch.qkv_bias:
        table[mc + "self_attention.linear_qkv.bias"] = Rule(tuple(attention + f"{x}_proj.bias" for x in "qkv"), "qkv")
    if arch.qk_norm:
        for x in "qk":
            table[mc + f"self_attention.{x}_layernorm.weight"] = Rule((attention + f"{x}_norm.weight",), "whole")
    if arch.experts:
        table[mc + "mlp.router.weight"] = Rule((hf + "mlp.gate.weight",), "whole")
    if not arch.tied_embeddings:
        table["output_layer.weight"] = Rule(("lm_head.weight",), "vocab")
    return table


# --- cutting: full Hugging Face tensors -> one rank's shard --------------------------------------------------


def cut(kind: str, tensors: list[torch.Tensor], arch: Architecture, rank: int, size: int) -> torch.Tensor:
    """The shard of tensor-parallel `rank` of `size`, from full tensors in the order of the rule's names."""
    if kind == "whole":
        return tensors[0]
    if kind == "columns":
        return tensors[0].chunk(size, dim=1)[rank]
    if kind == "vocab":
        rows = -(-arch.vocabulary // size)
        padded = torch.nn.functional.pad(tensors[0], (0, 0, 0, rows * size - arch.vocabulary))
        return padded[rank * rows : (rank + 1) * rows]
    if kind == "gate_up":
        return torch.cat([t.chunk(size, dim=0)[rank] for t in tensors])
    by_kv_head = [t.view(arch.kv_heads, -1, *t.shape[1:]) for t in tensors]  # qkv: [kv_heads, rows per kv head, ...]
    # Flat before the cut: with fewer kv heads than ranks, a rank holds less than a group (megatron joins them).
    return torch.cat(by_kv_head, dim=1).flatten(0, 1).chunk(size, dim=0)[rank]


def join(kind: str, shards: list[torch.Tensor], arch: Architecture) -> list[torch.Tensor]:
    """Full tensors in the order of the rule's names, from the shards of all ranks: the inverse of `cut`."""
    if kind == "whole":
        return [shards[0]]
    if kind == "columns":
        return [torch.cat(shards, dim=1)]
    if kind == "vocab":
        return [torch.cat(shards)[: arch.vocabulary]]
    if kind == "gate_up":
        return [torch.cat(halves) for halves in zip(*(s.chunk(2) for s in shards), strict=True)]
    full = torch.cat(shards)
    by_kv_head = full.view(arch.kv_heads, -1, *full.shape[1:])
    rows = [arch.heads // arch.kv_heads * arch.head_dim, arch.head_dim, arch.head_dim]
    return [tensor.flatten(0, 1) for tensor in by_kv_head.split(rows, dim=1)]


# --- the two directions --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Local:
    """A parameter of this rank's stage.

    name      with the layer's number in the whole model and the expert's number on this rank
    rule      with the layer's number filled in
    expert    the expert's number on this rank; None outside experts
    per_rank  experts that each rank holds
    """

    name: str
    rule: Rule
    expert: int | None
    per_rank: int

    def hf_names(self, expert_rank: int) -> list[str]:
        """The Hugging Face names of what expert-parallel rank `expert_rank` holds under this name."""
        if self.expert is None:
            return list(self.rule.hf_names)
        return [name.format(e=expert_rank * self.per_rank + self.expert) for name in self.rule.hf_names]


def local_parameters(chunks: Iterable[GPTModel], arch: Architecture) -> Iterator[tuple[Local, torch.nn.Parameter]]:
    """The parameters of this rank's stage, in a fixed order, but for adapters'. `chunks`: the models it is made of."""
    table = rules(arch)
    per_rank = (arch.experts or 0) // parallel_state.get_expert_model_parallel_world_size()
    for model, name, parameter in ((m, *named) for m in chunks for named in m.named_parameters()):
        if f".{ADAPTER}." in name:
            continue
        if name == "output_layer.weight" and arch.tied_embeddings:
            continue  # the last stage's copy of the embedding; filled by `load`, never exported
        layer = expert = None
        if found := re.match(r"decoder\.layers\.(\d+)\.", name):
            module = model.decoder.layers[int(found[1])]
            assert isinstance(module, TransformerLayer)
            layer = module.layer_number - 1
        if found := re.search(r"\.local_experts\.(\d+)\.", name):
            expert = int(found[1])
        general = re.sub(r"\.layers\.\d+\.", ".layers.{i}.", name)
        rule = table[re.sub(r"\.local_experts\.\d+\.", ".local_experts.{e}.", general)]
        hf_names = tuple(n.format(i=layer, e="{e}") for n in rule.hf_names)
        yield Local(general.format(i=layer), Rule(hf_names, rule.cut), expert, per_rank), parameter


@torch.no_grad()
def export(
    chunks: Sequence[GPTModel],
    arch: Architecture,
    value: Callable[[torch.nn.Parameter], torch.Tensor] = torch.Tensor.detach,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Streams every (Hugging Face name, full tensor) to every rank, one Megatron parameter at a time.

    `value` gives what is exported of a parameter: its weights, or for example its gradient.
    A collective over the tensor, pipeline and expert groups: every rank must run it to the end, in step.
    """
    tp, pp, ep = groups.tensor_group(), groups.pipeline_group(), groups.expert_group()
    mine = {local.name: parameter for local, parameter in local_parameters(chunks, arch)}
    device = next(chunks[0].parameters()).device
    # A value may take work to make, and its type matters to other stages alone.
    dtype_of = (lambda p: value(p).dtype) if pp.size() > 1 else (lambda p: p.dtype)
    owned = [(local, tuple(p.shape), dtype_of(p)) for local, p in local_parameters(chunks, arch)]
    for stage, parameters in enumerate(from_every_rank(owned, pp)):
        source = dist.get_global_rank(pp, stage)
        for local, shape, dtype in parameters:
            if stage == pp.rank():
                shard = value(mine[local.name]).contiguous()
            else:
                shard = torch.empty(shape, dtype=dtype, device=device)
            if pp.size() > 1:
                shard = shard.clone() if stage == pp.rank() else shard
                dist.broadcast(shard, source, group=pp)
            for expert_rank, own in enumerate([shard] if local.expert is None else _gather(shard, ep)):
                is_cut = local.expert is None and local.rule.cut != "whole"
                shards = _gather(own, tp) if is_cut else [own]
                yield from zip(local.hf_names(expert_rank), join(local.rule.cut, shards, arch), strict=True)


def _gather(shard: torch.Tensor, group: dist.ProcessGroup) -> list[torch.Tensor]:
    if group.size() == 1:
        return [shard]
    shards = [torch.empty_like(shard) for _ in range(group.size())]
    dist.all_gather(shards, shard, group=group)
    return shards


def expert_rank() -> int:
    """Which of the expert ranks this one is."""
    return parallel_state.get_expert_model_parallel_rank()


def mark_tensor_parallel(chunks: Iterable[GPTModel], arch: Architecture) -> None:
    """Tells megatron-core which parameters are cut over the tensor group.

    It sets this mark only while it initialises weights, which we leave out; without it the gradient norm
    silently counts one rank's shards only. (Experts are not cut, but other tensor ranks hold other experts.)
    """
    cuts = [(parameter, local.rule.cut) for local, parameter in local_parameters(chunks, arch)]
    cuts += [(model.output_layer.weight, "vocab") for model in chunks if _copies_embedding(model, arch)]
    for parameter, kind in cuts:
        if kind != "whole" and not getattr(parameter, "tensor_model_parallel", False):
            set_tensor_model_parallel_attributes(parameter, True, 1 if kind == "columns" else 0, 1)


@torch.no_grad()
def load(chunks: Iterable[GPTModel], arch: Architecture, read: Callable[[str], torch.Tensor]) -> None:
    """Fills this rank's stage; `read(name)` gives the full Hugging Face tensor of that name."""
    tp = groups.tensor_group()
    for local, parameter in local_parameters(chunks, arch):
        names = local.hf_names(expert_rank())
        rank, size = (tp.rank(), tp.size()) if local.expert is None else (0, 1)
        shard = cut(local.rule.cut, [read(n) for n in names], arch, rank, size)
        if shard.shape != parameter.shape:
            raise UserError(
                f"{names[0]}: shape {tuple(shard.shape)} does not fit {local.name} {tuple(parameter.shape)}"
            )
        parameter.copy_(shard)
    for model in chunks:
        if _copies_embedding(model, arch):
            embedding = cut("vocab", [read(EMBEDDING)], arch, tp.rank(), tp.size())
            weight = model.output_layer.weight
            assert weight is not None
            weight.copy_(embedding)


def _copies_embedding(model: GPTModel, arch: Architecture) -> bool:
    """Whether its output layer is a copy of the embedding, which the first stage holds."""
    return arch.tied_embeddings and model.post_process and not model.pre_process


def hf_shapes(arch: Architecture) -> dict[str, list[int]]:
    """Every Hugging Face tensor name of the architecture, with its shape."""
    general = [name for rule in rules(arch).values() for name in rule.hf_names]
    return {
        name.format(i=i, e=e): _shape(arch, name)
        for name in general
        for i in range(arch.layers)
        for e in range(arch.experts or 1)
    }


def _shape(arch: Architecture, name: str) -> list[int]:
    """[out, in] of a linear layer's weight, [out] of a bias or a norm."""
    queries, keys = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    intermediate = arch.moe.intermediate if arch.moe else arch.intermediate
    *_, module, kind = name.split(".")
    if module.endswith("norm"):
        return [arch.head_dim if module in ("q_norm", "k_norm") else arch.hidden]
    out, into = {
        "embed_tokens": (arch.vocabulary, arch.hidden),
        "lm_head": (arch.vocabulary, arch.hidden),
        "q_proj": (queries, arch.hidden),
        "k_proj": (keys, arch.hidden),
        "v_proj": (keys, arch.hidden),
        "o_proj": (arch.hidden, queries),
        "gate_proj": (intermediate, arch.hidden),
        "up_proj": (intermediate, arch.hidden),
        "down_proj": (arch.hidden, intermediate),
        "gate": (arch.experts or 0, arch.hidden),
    }[module]
    return [out] if kind == "bias" else [out, into]


class HfWeights:
    """Reads the architecture's tensors by name from a Hugging Face folder, without holding them all.

    The folder is read as transformers does (gcpo_mcore/hf/reader.py). UserError, naming the file or the tensor, if one
    is missing, unknown, misshapen or not finite; and for a tied model with an output head of its own, which
    transformers would keep beside the embedding.
    """

    def __init__(self, folder: str, arch: Architecture):
        self.folder = folder
        self._read = FolderReader(folder)
        self._shapes = hf_shapes(arch)
        self._stored_as = self._known_names(arch.tied_embeddings)
        for name in sorted(self._shapes.keys() - self._stored_as.keys()):
            raise UserError(f"{folder}: tensor {name} is missing")
        for name in sorted(self._stored_as.keys() - self._shapes.keys()):
            raise UserError(f"{folder}: tensor {self._stored_as[name]} is unknown to {arch.family}")
        for name, shape in self._shapes.items():
            if (found := self.shape(name)) != shape:
                raise UserError(f"{folder}: {name} has shape {found}, the config says {shape}")

    def _known_names(self, is_tied: bool) -> dict[str, str]:
        """Every tensor's name in a model with a head, and in the folder: one saved without a head has no 'model.'"""
        there = [name for name in self._read.names() if not BUFFERS.search(name)]
        known = {name if name.startswith("model.") or name == HEAD else f"model.{name}": name for name in there}
        for name in sorted(set(there) - set(known.values())):
            raise UserError(f"{self.folder}: tensor {name} is there with and without 'model.'")
        if is_tied and (head := known.pop(HEAD, None)):
            embedding = known.setdefault(EMBEDDING, head)
            if embedding != head and not same_values(self._read(embedding), self._read(head)):
                raise UserError(
                    f"{self.folder}: {HEAD} differs from {EMBEDDING}, but config.json has tie_word_embeddings true "
                    f"(false: both are trained)"
                )
        return known

    def names(self) -> list[str]:
        """The names of the architecture's tensors."""
        return sorted(self._shapes)

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor, without reading it."""
        return self._read.shape(self._stored_as[name])

    def checksum(self) -> str:
        """32 hex digits of all tensors' names, types and values, however they lie in files. Reads all of them."""
        digest = xxhash.xxh3_128()
        for name in self.names():
            tensor = self._read(self._stored_as[name]).contiguous()
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def __call__(self, name: str) -> torch.Tensor:
        tensor = self._read(self._stored_as[name])
        check_finite(self.folder, name, tensor)
        return tensor
