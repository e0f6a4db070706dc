"""Builds megatron-core's GPTModel for an architecture and a layout."""

import importlib.util

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.moe_layer import MoESubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayerSubmodules

from gcpo_mcore.actor import packed_attention, rotary
from gcpo_mcore.actor.attention import SdpaAttention
from gcpo_mcore.actor.backend import Backend
from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.actor.norm import RMSNorm
from gcpo_mcore.actor.policy_model import PolicyModel
from gcpo_mcore.actor.swiglu import SwiGLU
from gcpo_mcore.base import platform
from gcpo_mcore.hf.architecture import Architecture

if not moe_utils.HAVE_TE:
    moe_utils.te_general_gemm = None  # its router asks for this name, which it defines with transformer-engine only
rotary.install()


def start_parallel(layout: Layout, seed: int) -> None:
    """Makes megatron's process groups and random-number tracker for this rank."""
    with platform.megatron():
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=layout.tensor,
            pipeline_model_parallel_size=layout.pipeline,
            virtual_pipeline_model_parallel_size=layout.virtual_pipeline if layout.virtual_pipeline > 1 else None,
            context_parallel_size=layout.context,
            expert_model_parallel_size=layout.expert,
            expert_tensor_parallel_size=1,  # an expert lies whole on a rank; gloo could not gather its tokens
        )
        tensor_parallel.model_parallel_cuda_manual_seed(seed)
    if platform.is_hopper():
        packed_attention.use_flash_attention_3()


def transformer_config(
    arch: Architecture,
    parallel: ParallelConfig,
    dtype: torch.dtype,
    backend: Backend,
    on_gpu: bool = platform.HAS_CUDA,
) -> TransformerConfig:
    """megatron-core's view of the architecture. Fusions that need a CUDA extension are off, but for one of apex's."""
    return TransformerConfig(
        num_layers=arch.layers,
        hidden_size=arch.hidden,
        num_attention_heads=arch.heads,
        num_query_groups=arch.kv_heads,
        kv_channels=arch.head_dim,
        ffn_hidden_size=arch.intermediate,
        normalization="RMSNorm",
        layernorm_epsilon=arch.norm_eps,
        qk_layernorm=arch.qk_norm,
        add_bias_linear=False,
        add_qkv_bias=arch.qkv_bias,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        params_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=parallel.tensor,
        context_parallel_size=parallel.context,
        expert_model_parallel_size=parallel.expert,
        sequence_parallel=parallel.sequence,
        # The weights always come from a Hugging Face folder: initial values are never used.
        perform_initialization=False,
        use_cpu_initialization=not on_gpu,
        gradient_accumulation_fusion=on_gpu and has_fused_accumulation(),
        use_te_activation_func=backend == "local",  # a module in place of a function: ours (swiglu.py)
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=backend == "local",  # ours (rotary.py)
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        # Losses are sums over one global denominator: megatron must not average over micro-batches or ranks.
        calculate_per_token_loss=True,
        cuda_graph_scope=[],  # megatron's own default is a deprecated one, about which it warns
        variable_seq_lengths=False,
        **_pipeline_config(parallel),
        **_experts_config(arch),
        **_recompute_config(arch, parallel),
    )


def has_fused_accumulation() -> bool:
    """Whether apex's extension is there, which adds a weight's gradient to its buffer inside the product."""
    return importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None


def fuse_accumulation(model: torch.nn.Module) -> None:
    """Has Transformer Engine's layers add their weights' gradients to the buffers inside the product.

    megatron-core's setting asks for apex's extension as well, for an output layer that is not run here.
    """
    for module in model.modules():
        if hasattr(module, "fuse_wgrad_accumulation"):
            setattr(module, "fuse_wgrad_accumulation", True)  # noqa: B010 (Transformer Engine's own field)


def _pipeline_config(parallel: ParallelConfig) -> dict:
    """The stages and their messages."""
    config = {"pipeline_model_parallel_size": parallel.pipeline, "batch_p2p_comm": platform.HAS_CUDA}
    if parallel.virtual_pipeline > 1:
        # With gloo, results are wrong without an error if messages do not overlap, or if what is being sent is freed.
        config |= {
            "virtual_pipeline_model_parallel_size": parallel.virtual_pipeline,
            "batch_p2p_comm": False,
            "overlap_p2p_comm": True,
            "deallocate_pipeline_outputs": False,
        }
    return config


def _experts_config(arch: Architecture) -> dict:
    """The router as in transformers: no balancing loss, no capacity limit, softmax over all experts or over the top."""
    if not arch.experts:
        return {}
    return {
        "num_moe_experts": arch.experts,
        "moe_ffn_hidden_size": arch.expert_intermediate,
        "moe_router_topk": arch.experts_per_token,
        # Softmax over the chosen logits is softmax over all of them, scaled to a sum of 1.
        "moe_router_pre_softmax": not arch.normalised_topk,
        "moe_router_load_balancing_type": "none",
        "moe_token_dispatcher_type": "alltoall",
        "expert_tensor_parallel_size": 1,
    }


def _recompute_config(arch: Architecture, parallel: ParallelConfig) -> dict:
    """selective: the MLP or the experts, whose activations are the widest; torch's attention keeps no scores anyway."""
    if parallel.recompute == "none":
        return {}
    if parallel.recompute == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": ["moe" if arch.experts else "mlp"]}
    return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def rotary_frequencies(arch: Architecture) -> torch.Tensor:
    """[head_dim / 2] scaled rotary frequencies, by transformers' own function of the config's rope type."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = arch.rope_scaling
    assert scaling is not None, "the default rope's frequencies are megatron's own"
    config = LlamaConfig(
        hidden_size=arch.hidden,
        num_attention_heads=arch.heads,
        head_dim=arch.head_dim,
        max_position_embeddings=arch.max_positions,
        rope_parameters={"rope_theta": arch.rope_theta, **scaling},
    )
    with platform.device():  # not on the meta device, when the model is built there
        frequencies, attention_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config)
    assert attention_factor == 1.0  # true of the types in architecture.ROPE_TYPES
    return frequencies


def block_spec(arch: Architecture, layers: int, backend: Backend) -> TransformerBlockSubmodules:
    """`layers` of megatron-core's layer spec for the backend, and a final norm, with our core attention and norm.

    Transformer Engine has the norms before attention and MLP in its linear layers.
    """
    if backend == "te":
        spec = get_gpt_layer_with_transformer_engine_spec(qk_layernorm=arch.qk_norm)
    else:
        spec = get_gpt_layer_local_spec(
            num_experts=arch.experts, moe_grouped_gemm=False, qk_layernorm=arch.qk_norm, normalization="RMSNorm"
        )
    layer = spec.submodules
    assert isinstance(layer, TransformerLayerSubmodules) and isinstance(layer.self_attention, ModuleSpec)
    if backend == "local":
        layer.input_layernorm = layer.pre_mlp_layernorm = RMSNorm
        _set_activation(layer.mlp)
    attention = layer.self_attention.submodules
    assert isinstance(attention, SelfAttentionSubmodules)
    attention.core_attention = SdpaAttention
    if arch.qk_norm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    return TransformerBlockSubmodules(layer_specs=[spec] * layers, layer_norm=ModuleSpec(RMSNorm))


def _set_activation(mlp: object) -> None:
    """Gives the MLP, or each expert's, our SwiGLU."""
    assert isinstance(mlp, ModuleSpec)
    submodules = mlp.submodules
    if isinstance(submodules, MoESubmodules):
        _set_activation(submodules.experts)
    elif isinstance(submodules, MLPSubmodules):
        submodules.activation_func = SwiGLU


def padded_vocabulary(arch: Architecture, tensor: int) -> int:
    """The vocabulary rounded up to a multiple of the tensor-parallel size."""
    return -(-arch.vocabulary // tensor) * tensor


def build_model(
    arch: Architecture,
    parallel: ParallelConfig,
    layout: Layout,
    dtype: torch.dtype,
    device: torch.device | None = None,
    chunk: int = 0,
    backend: Backend = "local",
) -> PolicyModel:
    """A chunk of this rank's stage of the model, on `device` (None: the rank's), weights not yet loaded."""
    device = device or platform.device()
    is_first = chunk == 0 and parallel_state.is_pipeline_first_stage()
    is_last = chunk == layout.virtual_pipeline - 1 and parallel_state.is_pipeline_last_stage()
    with platform.megatron():
        model = PolicyModel(
            config=transformer_config(arch, parallel, dtype, backend, on_gpu=device.type == "cuda"),
            transformer_layer_spec=block_spec(
                arch, arch.layers // (layout.pipeline * layout.virtual_pipeline), backend
            ),
            vocab_size=padded_vocabulary(arch, layout.tensor),
            max_sequence_length=arch.max_positions,
            pre_process=is_first,
            post_process=is_last,
            parallel_output=True,
            share_embeddings_and_output_weights=arch.tied_embeddings,
            position_embedding_type="rope",
            rotary_base=arch.rope_theta,
            vp_stage=chunk if layout.virtual_pipeline > 1 else None,
        )
        if backend == "te":
            fuse_accumulation(model)
        if arch.rope_scaling:
            # megatron's own scaling fixes three of llama3's four numbers
            model.rotary_pos_emb.inv_freq = rotary_frequencies(arch)
        return model.to(device)


def build_chunks(
    arch: Architecture, parallel: ParallelConfig, layout: Layout, dtype: torch.dtype, backend: Backend
) -> list[PolicyModel]:
    """This rank's stage: its PolicyModels in the order in which a micro-batch passes them."""
    return [
        build_model(arch, parallel, layout, dtype, chunk=i, backend=backend) for i in range(layout.virtual_pipeline)
    ]


def wrap_data_parallel(model: PolicyModel, parallel: ParallelConfig) -> DistributedDataParallel:
    """The model with megatron's gradient buffers: fp32 gradients, summed over the data-parallel and context groups."""
    with platform.megatron():
        return DistributedDataParallel(
            config=model.config,
            ddp_config=DistributedDataParallelConfig(
                grad_reduce_in_fp32=True,
                overlap_grad_reduce=parallel.overlap,
                use_distributed_optimizer=parallel.distributed_optimizer,
                overlap_param_gather=parallel.overlaps_gather,
                align_param_gather=True,  # all buckets are sent at once (gathering.py)
                check_for_nan_in_grad=False,  # a non-finite norm is counted and its update left out (optimizer.py)
            ),
            module=model,
        )
