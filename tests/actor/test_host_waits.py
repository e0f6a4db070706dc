"""No layer makes the host wait for the device: a deeper model has as many waits as a shallow one."""

import json
from pathlib import Path

import torch

from tests.actor.families import make_model
from tests.actor.waits_worker import Waits
from tests.launching import run

WORKER = Path(__file__).with_name("waits_worker.py")


def test_waits_do_not_grow_with_the_layers(tmp_path):
    models = [make_model("qwen2", tmp_path / str(n), num_hidden_layers=n) for n in (1, 4)]
    run(WORKER, str(tmp_path / "out.json"), *map(str, models))
    counts = json.loads((tmp_path / "out.json").read_text())
    assert counts.keys() == {"padded", "packed", "shared"}
    for kind, (shallow, deep) in counts.items():
        assert shallow == deep, kind


def test_waits_are_seen():
    values = torch.arange(4)
    with Waits() as waits:
        int(values.sum())
        values.nonzero()
        values[values > 1]
        values + 1
    assert waits.count == 3
