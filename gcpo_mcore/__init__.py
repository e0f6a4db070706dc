"""gcpo_mcore: reinforcement learning with verifiable rewards on Megatron-Core.

Importing the package is free of side effects and does not import torch, so that the reward
workers (`gcpo_mcore.rewarding`) stay small and start fast.
"""

from pathlib import Path

# algorithms/, rewards/ and configs/ are inside the package where a wheel is installed. A checkout has them at its root,
# and they must be its own ones, whatever else is installed.
_ROOT = Path(__file__).resolve().parents[1]
if (_ROOT / "configs" / "train.yaml").is_file():
    __path__.append(str(_ROOT))
