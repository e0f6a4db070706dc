"""Rules by which one key of the configuration decides another, before the schema checks the whole."""

from typing import Any

from omegaconf import OmegaConf

from gcpo_mcore.base.places import CONFIGS


def correct_older_weights(plain: dict[str, Any]) -> dict[str, Any]:
    """`plain` with algorithm/mismatch=tis in place of off, where samples of older weights are trained on.

    They are with rollout.max_staleness above 0 and with rollout.partial; rollout.uncorrected keeps the off.
    """
    rollout, algorithm = _section(plain, "rollout"), _section(plain, "algorithm")
    is_stale = rollout.get("max_staleness") or rollout.get("partial")
    is_off = _section(algorithm, "mismatch").get("name") == "off"
    if not is_stale or rollout.get("uncorrected") or not is_off:
        return plain
    tis = OmegaConf.to_container(OmegaConf.load(CONFIGS / "algorithm/mismatch/tis.yaml"))
    return plain | {"algorithm": algorithm | {"mismatch": tis}}


def _section(node: dict[str, Any], key: str) -> dict[str, Any]:
    """A part of the tree that the schema has not seen yet; {} if it is not there."""
    found = node.get(key)
    return found if isinstance(found, dict) else {}
