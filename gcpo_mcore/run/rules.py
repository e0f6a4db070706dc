"""Rules by which one key of the configuration decides another, before the schema checks the whole."""

from typing import Any

from omegaconf import OmegaConf

from gcpo_mcore.base.places import CONFIGS


def correct_older_weights(plain: dict[str, Any]) -> dict[str, Any]:
    """`plain` with algorithm/mismatch=tis in place of off, where samples of older weights are trained on.

    They are with rollout.max_staleness above 0 and with rollout.partial; rollout.uncorrected keeps the off. The same
    in every stage.
    """
    rollout, stages = _section(plain, "rollout"), _section(plain, "stages")
    if not (rollout.get("max_staleness") or rollout.get("partial")) or rollout.get("uncorrected"):
        return plain
    corrected = {name: _corrected(stage) if isinstance(stage, dict) else stage for name, stage in stages.items()}
    return _corrected(plain | ({"stages": corrected} if stages else {}))


def _corrected(node: dict[str, Any]) -> dict[str, Any]:
    """`node`, which has an algorithm, with tis in place of its off."""
    algorithm = _section(node, "algorithm")
    if _section(algorithm, "mismatch").get("name") != "off":
        return node
    tis = OmegaConf.to_container(OmegaConf.load(CONFIGS / "algorithm/mismatch/tis.yaml"))
    return node | {"algorithm": algorithm | {"mismatch": tis}}


def _section(node: dict[str, Any], key: str) -> dict[str, Any]:
    """A part of the tree that the schema has not seen yet; {} if it is not there."""
    found = node.get(key)
    return found if isinstance(found, dict) else {}
