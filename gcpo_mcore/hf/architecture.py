"""The architecture, read from a Hugging Face config: never retyped.

Covers the families whose layers are attention (GQA, optional q/k norm, optional qkv bias) and a gated SiLU MLP, or
experts of that form, with RMSNorm: Qwen2 (and Qwen2.5, DeepSeek-R1-Distill-Qwen), Qwen3, Qwen3-MoE, Llama (and
SmolLM2), Mistral without a sliding window.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.base.program import command

FAMILIES = ("qwen2", "qwen3", "qwen3_moe", "llama", "mistral")
ROPE_TYPES = ("default", "linear", "llama3")  # those that change the rotary frequencies alone
# What the layers below are written for; a config that says otherwise is refused.
WANTED = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "use_sliding_window": False,
    "decoder_sparse_step": 1,  # every layer has experts
    "mlp_only_layers": [],
}


class Experts(NamedTuple):
    """A layer's experts: how many, how many of them a token goes to, and the width of each."""

    count: int
    per_token: int
    intermediate: int


@dataclass(frozen=True)
class Architecture:
    """What the actor needs to know of a model. Sizes are counts; `rope_theta` is the rotary base.

    rope_scaling       the config's rope parameters where they are not the default ones
    experts            experts of a layer, of `expert_intermediate` each; None: a dense MLP of `intermediate`
    experts_per_token  how many of them a token goes to
    normalised_topk    whether their weights are scaled to a sum of 1
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_positions: int
    rope_theta: float
    norm_eps: float
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    rope_scaling: dict[str, Any] | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    expert_intermediate: int | None = None
    normalised_topk: bool | None = None

    @property
    def moe(self) -> Experts | None:
        """The experts of a layer; None: a dense MLP."""
        if self.experts is None:
            return None
        assert self.experts_per_token is not None and self.expert_intermediate is not None
        return Experts(self.experts, self.experts_per_token, self.expert_intermediate)

    @property
    def parameters(self) -> int:
        """Number of weights, embeddings counted once if tied."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        attention += self.head_dim * (self.heads + 2 * self.kv_heads) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        mlp = 3 * self.hidden * self.intermediate
        if moe := self.moe:
            mlp = moe.count * self.hidden * (3 * moe.intermediate + 1)  # 1: the router's row
        layer = attention + mlp + 2 * self.hidden
        return self.layers * layer + self.hidden + (2 - self.tied_embeddings) * self.vocabulary * self.hidden

    def difference(self, other: dict) -> str | None:
        """The first field in which `other` (a saved `asdict`) differs, as 'hidden 128, not 256'; None if equal."""
        for key, value in asdict(self).items():
            if other.get(key) != value:
                return f"{key} {other.get(key)}, not {value}"
        return None


def read_architecture(folder: str) -> Architecture:
    """The architecture in `folder`/config.json. UserError, naming file and key, for what the actor cannot carry."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        if path.with_name("adapter_config.json").is_file():
            raise UserError(f"model.path: {path} does not exist, an adapter does: merge it into its model first")
        raise UserError(f"model.path: {path} does not exist; `{command('prepare')}` makes the quick-start's model")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid json ({error})") from None
    family = raw.get("model_type", "")
    if family not in FAMILIES:
        raise UserError(
            f"{path}: model_type '{family}' is not carried{nearest(family, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    from transformers import AutoConfig  # late: it fills the family's defaults, and takes a second to import

    try:
        hf = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # its validators raise types of their own for a config that contradicts itself
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    rope = getattr(hf, "rope_parameters", None) or getattr(hf, "rope_scaling", None) or {}
    _refuse_unknown(path, family, hf, rope)
    experts = {}
    if family == "qwen3_moe":
        experts = {
            "experts": hf.num_experts,
            "experts_per_token": hf.num_experts_per_tok,
            "expert_intermediate": hf.moe_intermediate_size,
            "normalised_topk": bool(hf.norm_topk_prob),
        }
    return Architecture(
        family=family,
        layers=hf.num_hidden_layers,
        hidden=hf.hidden_size,
        heads=hf.num_attention_heads,
        kv_heads=hf.num_key_value_heads,
        head_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
        intermediate=hf.intermediate_size,
        vocabulary=hf.vocab_size,
        max_positions=hf.max_position_embeddings,
        rope_theta=float(rope.get("rope_theta") or hf.rope_theta),
        norm_eps=hf.rms_norm_eps,
        tied_embeddings=bool(hf.tie_word_embeddings),
        qkv_bias=family == "qwen2",
        qk_norm=family.startswith("qwen3"),
        rope_scaling=None if rope.get("rope_type", "default") == "default" else dict(rope),
        **experts,
    )


def _refuse_unknown(path: Path, family: str, hf, rope: dict) -> None:
    """UserError for a setting that the layers are not written for."""
    for key in ("quantization_config", "compression_config"):
        if told := getattr(hf, key, None):
            method = told.get("quant_method", "?") if isinstance(told, dict) else "?"
            raise UserError(
                f"{path}: {key} ({method}) is not carried: train from weights that are not quantised; "
                f"if these are not, remove the key"
            )
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise UserError(f"{path}: rope_type '{kind}' is not carried; known: {', '.join(ROPE_TYPES)}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{path}: partial_rotary_factor {rope['partial_rotary_factor']} is not carried; known: 1.0")
    for key, wanted in WANTED.items():
        if getattr(hf, key, wanted) != wanted:
            raise UserError(f"{path}: {key} {getattr(hf, key)} is not carried; known: {wanted}")
    window = getattr(hf, "sliding_window", None)
    if family == "mistral" and window is not None and window < hf.max_position_embeddings:
        raise UserError(f"{path}: sliding_window {window} is not carried; known: null")
    if family != "qwen2" and getattr(hf, "attention_bias", False):
        raise UserError(f"{path}: attention_bias true is not carried for {family}")
    if family == "qwen3_moe" and hf.num_experts_per_tok == 1 and hf.norm_topk_prob:
        raise UserError(
            f"{path}: num_experts_per_tok 1 with norm_topk_prob is not carried: the router gets no gradient"
        )
