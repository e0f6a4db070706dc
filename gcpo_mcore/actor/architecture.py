"""The architecture, read from a Hugging Face config: never retyped.

Covers the dense families whose layers are attention (GQA, optional q/k norm, optional qkv bias) and a
gated SiLU MLP with RMSNorm: Qwen2, Qwen3, Llama.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gcpo_mcore.errors import UserError, nearest

FAMILIES = ("qwen2", "qwen3", "llama")


@dataclass(frozen=True)
class Architecture:
    """What the actor needs to know of a model. Sizes are counts; `rope_theta` is the rotary base."""

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

    @property
    def parameters(self) -> int:
        """Number of weights, embeddings counted once if tied."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        attention += self.head_dim * (self.heads + 2 * self.kv_heads) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
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
        raise UserError(f"model.path: {path} does not exist; `python tools/prepare.py` makes the quick-start's model")
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
        hf = AutoConfig.from_pretrained(folder)
    except Exception as error:  # its validators raise types of their own for a config that contradicts itself
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    rope = getattr(hf, "rope_parameters", None) or getattr(hf, "rope_scaling", None) or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise UserError(f"{path}: rope_type '{kind}' is not carried yet; known: default")
    for key, wanted in {"hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False}.items():
        if getattr(hf, key, wanted) != wanted:
            raise UserError(f"{path}: {key} {getattr(hf, key)} is not carried; known: {wanted}")
    if family != "qwen2" and getattr(hf, "attention_bias", False):
        raise UserError(f"{path}: attention_bias true is not carried for {family}")
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
        qk_norm=family == "qwen3",
    )
