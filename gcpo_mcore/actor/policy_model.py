"""megatron-core's GPTModel, told to stop before its output layer where log-probs of chosen tokens are wanted."""

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)

from gcpo_mcore.actor import groups, routing
from gcpo_mcore.actor.pack import Pack
from gcpo_mcore.actor.rotary import turns


class PolicyModel(GPTModel):
    """GPTModel; its last stage gives hidden states in place of logits if called with `stop_at_hidden`."""

    _stops_at_hidden = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._replays = routing.install(self)
        self._positions: torch.Tensor | None = None
        rotary = self.rotary_pos_emb
        assert isinstance(rotary, RotaryEmbedding)
        rotary.register_forward_hook(self._embedding)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        *,
        packed_seq_params: Pack | None = None,
        stop_at_hidden: bool = False,
        experts: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Gives what GPTModel does, or the last stage's hidden states [s, b, h] (under sequence parallelism a slice).

        experts: [b, s, layers, topk] those that the tokens go to, -1 where the routers choose (None: everywhere).
        """
        self._stops_at_hidden = stop_at_hidden
        self._positions = None if packed_seq_params is None else positions[0]
        routing.replay(self._replays, experts, self.config.sequence_parallel)
        packs = {} if packed_seq_params is None else {"packed_seq_params": packed_seq_params}
        return super().forward(tokens, positions, **packs, **kwargs)

    def _embedding(self, rotary: RotaryEmbedding, arguments: tuple, embedding: torch.Tensor) -> torch.Tensor:
        """[s, 1, 1, d] the angles of a pack's own positions in place of those of 0, 1, 2, ...; as the layers want them.

        Made once for all layers.
        """
        if self._positions is not None:
            embedding = rotary.get_emb(arguments[0], 0)[self._positions]
        return turns(embedding) if self.config.apply_rope_fusion else embedding

    def _postprocess(self, hidden_states, *args, **kwargs):
        if self._stops_at_hidden:
            return hidden_states
        return super()._postprocess(hidden_states, *args, **kwargs)

    @property
    def head_weight(self) -> torch.nn.Parameter:
        """[v/tp, h] this rank's rows of the output layer, on the last stage."""
        is_shared = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if is_shared else self.output_layer.weight
        assert isinstance(weight, torch.nn.Parameter), "only the last stage has an output layer"
        return weight

    def choose(self, hidden: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """[n, h] the hidden states at flat positions `source` (in b*s), whole on every tensor rank.

        The gradient that comes back may be each tensor rank's own addend: it is summed over the group here.
        """
        if self.config.sequence_parallel:
            whole = gather_from_sequence_parallel_region(
                hidden, tensor_parallel_output_grad=True, group=groups.tensor_group()
            )
            return whole.transpose(0, 1).flatten(0, 1)[source]
        return copy_to_tensor_model_parallel_region(hidden.transpose(0, 1).flatten(0, 1)[source])
