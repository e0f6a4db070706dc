"""Which parameters a rank holds, by sizes alone: what actor/model.py would build."""

from dataclasses import dataclass

from gcpo_mcore.actor.config import LoraAdapter
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.hf.architecture import Architecture


@dataclass(frozen=True)
class Size:
    """One parameter: its number of elements on this rank, and which gradient buffer it goes to.

    is_expert  it is one of the experts that are dealt over the expert group
    is_shared  the embedding, of which two pipeline stages hold a copy
    """

    elements: int
    is_expert: bool = False
    is_shared: bool = False


def stage_parameters(arch: Architecture, layout: Layout, stage: int) -> list[list[Size]]:
    """The parameters of pipeline `stage`, by chunk of layers, in the order in which megatron-core registers them."""
    chunks = []
    for chunk in range(layout.virtual_pipeline):
        is_first = stage == 0 and chunk == 0
        is_last = stage == layout.pipeline - 1 and chunk == layout.virtual_pipeline - 1
        rows = -(-arch.vocabulary // layout.tensor)
        is_copied = arch.tied_embeddings and layout.pipeline > 1
        sizes = [Size(rows * arch.hidden, is_shared=is_copied)] if is_first else []
        for _ in range(arch.layers // (layout.pipeline * layout.virtual_pipeline)):
            sizes += _layer(arch, layout)
        if is_last:
            sizes.append(Size(arch.hidden))
            if not arch.tied_embeddings or is_copied:
                sizes.append(Size(rows * arch.hidden, is_shared=is_copied))
        chunks.append(sizes)
    return chunks


def stage_adapters(arch: Architecture, layout: Layout, stage: int, adapter: LoraAdapter) -> list[list[Size]]:
    """The A and B of pipeline `stage`, as `stage_parameters` has the weights."""
    layers = arch.layers // (layout.pipeline * layout.virtual_pipeline)
    return [layers * _layer_adapters(arch, layout, adapter) for _ in range(layout.virtual_pipeline)]


def _layer_adapters(arch: Architecture, layout: Layout, adapter: LoraAdapter) -> list[Size]:
    t, h, r = layout.tensor, arch.hidden, adapter.rank
    queries, keys = arch.heads * arch.head_dim // t, arch.kv_heads * arch.head_dim // t
    sizes: list[Size] = []
    for target, into, out in (("o_proj", queries, h), ("q_proj", h, queries), ("k_proj", h, keys), ("v_proj", h, keys)):
        sizes += [Size(r * into), Size(r * out)] if adapter.has(target) else []
    moe = arch.moe
    if moe is None:
        width = arch.intermediate // t
        for target, into, out in (("gate_proj", h, width), ("up_proj", h, width), ("down_proj", width, h)):
            sizes += [Size(r * into), Size(r * out)] if adapter.has(target) else []
    elif adapter.has("experts"):
        outward, inward = Size(r * h, layout.expert > 1), Size(r * moe.intermediate, layout.expert > 1)
        sizes += [outward, inward, outward, inward, inward, outward] * (moe.count // layout.expert)
    return sizes


def _layer(arch: Architecture, layout: Layout) -> list[Size]:
    t, h = layout.tensor, arch.hidden
    queries, projected = arch.heads * arch.head_dim, (arch.heads + 2 * arch.kv_heads) * arch.head_dim
    sizes = [h, queries // t * h, projected // t * h]
    sizes += [projected // t] * arch.qkv_bias + [arch.head_dim] * (2 * arch.qk_norm) + [h]
    dense = [Size(n) for n in sizes]
    moe = arch.moe
    if moe is None:
        return [*dense, Size(2 * arch.intermediate // t * h), Size(arch.intermediate // t * h)]
    width, is_dealt = moe.intermediate * h, layout.expert > 1
    expert = [Size(2 * width, is_expert=is_dealt), Size(width, is_expert=is_dealt)]
    return [*dense, Size(moe.count * h), *(expert * (moe.count // layout.expert))]
