"""The Megatron-Core actor: the policy's weights, their updates and their export."""

import warnings

from gcpo_mcore.base import platform  # noqa: F401 (sets what megatron-core reads when it is imported)

warnings.filterwarnings("ignore", message=".*(Apex|apex|Transformer Engine|transformer_engine).*")
