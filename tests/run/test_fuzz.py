"""Whatever a user or a disk gives, it is taken, or refused in one line that names the cause: seeded, in seconds."""

import copy
import functools
import json
import pickle
import random
from importlib import metadata

import pytest
import torch
from omegaconf import OmegaConf

from gcpo_mcore.ablation.grid import read_grid
from gcpo_mcore.actor.random_states import random_states, set_random_states
from gcpo_mcore.base import registry
from gcpo_mcore.base.config import flat
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.places import CONFIGS as CONFIG_FILES
from gcpo_mcore.data.dataset import load
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder, check, check_architecture
from gcpo_mcore.run.load import parse
from gcpo_mcore.shards.piece import Piece
from gcpo_mcore.shards.reading import Reading, read_common
from gcpo_mcore.shards.writing import write_file, write_index
from gcpo_mcore.tasks import carry
from tests.config.composed import composed, resolved
from tests.data.test_dataset import config
from tests.hostile_pickle import fit_manifest
from tests.sums import sum_folder

COMMANDS = [
    ["reward=math_verify"], ["rollout=sglang", "reward=remote", "algorithm=dapo"],
    ["benchmark=[gsm8k]", "algorithm=conspo", "data/curriculum=by_pass_rate", "reward=math_verify_overlong"],
]  # fmt: skip
VALUES = [
    float("inf"), -float("inf"), float("nan"), 1e39, 1e308, 1e12, 1e-320, 5e-324, -1, 0, -0.0, 1.5, 2**31, 2**63,
    10**30, None, True, "", "abc", "../x", "é", "a\nb", "\0", "\udc80", "9" * 30, "1e5", [], [1], [[]], {}, {"a": 1},
    {"": None}, {1: 2},
]  # fmt: skip
CONFIGS, ROWS, CHECKPOINTS = 120, 150, 150


def in_one_line(error: UserError) -> bool:
    return bool(str(error)) and "\n" not in str(error)


@pytest.fixture
def known_entry_points(monkeypatch):
    """Those of other distributions, looked for once: it takes most of the time otherwise."""
    monkeypatch.setattr(registry, "entry_points", functools.cache(metadata.entry_points))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_configurations(command, known_entry_points):
    """A key of each has another value: of the wrong type, out of any range, or one that is right by chance."""
    plain, r = resolved(composed(*command)), random.Random(" ".join(command))
    keys = [key for key, _ in flat(plain)] + ["rollout", "reward.parts", "algorithm.kl", "data.train", "benchmark"]
    refused = 0
    for _ in range(CONFIGS):
        key, value = r.choice(keys), r.choice(VALUES)
        changed = copy.deepcopy(plain)
        *way, last = key.split(".")
        functools.reduce(dict.__getitem__, way, changed)[last] = value
        try:
            parse(OmegaConf.create(changed))
        except UserError as error:
            assert in_one_line(error), (key, value)
            assert any(part in str(error) for part in key.split(".")), (key, value, str(error))
            refused += 1
        except Exception as error:
            raise AssertionError(f"{key}={value!r}") from error
    assert refused > CONFIGS // 3


# Each was a traceback, or was taken and ended one later.
NO_NUMBERS = [
    "optimizer.lr=inf", "optimizer.lr=1e39", "optimizer.eps=nan", "optimizer.weight_decay=1e300",
    "monitor.phase_deadline_s=1e12", "reward.deadline_s=1e12", "reward.wall_deadline_s=inf",
    "rollout.sampling.temperature=1e39", "algorithm.entropy_coefficient=inf",
]  # fmt: skip


@pytest.mark.parametrize("override", NO_NUMBERS)
def test_numbers_that_no_machine_can_use(override, known_entry_points):
    key, _, value = override.partition("=")
    changed = OmegaConf.create(resolved(composed()))
    OmegaConf.update(changed, key, float(value))
    with pytest.raises(UserError, match=f"^{key}=.*: ") as caught:
        parse(changed)
    assert in_one_line(caught.value)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "", "a\tb", "x" * 251])
def test_names_that_become_files(name, known_entry_points):
    """Of a benchmark, whose answers are in a file of its name."""
    plain = resolved(composed("benchmark=[gsm8k]"))
    plain["benchmark"] = {name: plain["benchmark"]["gsm8k"]}
    with pytest.raises(UserError, match=r"^benchmark=.*: ") as caught:
        parse(OmegaConf.create(plain))
    assert in_one_line(caught.value)


def test_a_grid_is_below_its_folder(tmp_path):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "x.yaml").write_text((CONFIG_FILES / "ablation/all_wrong_only.yaml").read_text())
    with pytest.raises(UserError, match=r"^experiment=\.\./x: it has to name a grid's folder, without '/'"):
        read_grid([f"hydra.searchpath=['file://{tmp_path}']", "experiment=../x"])


def mangled(r: random.Random, content: bytes) -> bytes:
    """Some bytes of it are others, or are gone, or more."""
    changed = bytearray(content)
    for _ in range(r.choice([1, 1, 2, 8])):
        at = r.randrange(len(changed) + 1)
        match r.randrange(4):
            case 0 if changed:
                changed[at % len(changed)] = r.randrange(256)
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = r.randbytes(r.randrange(9))
            case _:
                del changed[at : at + r.randrange(9)]
    return bytes(changed)


def test_rows_of_data(tmp_path):
    r, tokenizer = random.Random(0), carry.make_tokenizer()
    values = [v for v in VALUES if v != "\udc80"]
    good = {"prompt": "3+8?", "answer": "11", "golden_answer": "0+3+8=11:11", "kind": "one_digit"}
    file, refused = tmp_path / "rows.jsonl", 0
    for number in range(ROWS):
        row = {**good, r.choice([*good, "other"]): r.choice(values)}
        content = "".join(json.dumps(one) + "\n" for one in (good, row)).encode()
        file.write_bytes(content if number % 2 else mangled(r, content))
        try:
            load("easy", str(file), config(), tokenizer)
        except UserError as error:
            assert in_one_line(error) and (str(file) in str(error) or "data." in str(error)), (row, str(error))
            refused += 1
        except Exception as error:
            raise AssertionError(file.read_bytes()) from error
    assert refused > ROWS // 4


def test_checkpoints(tmp_path, tiny_models):
    """A file of one is another, and the sums fit it: they say nothing of what is in it."""
    r, arch = random.Random(0), read_architecture(str(tiny_models["qwen2-tied"]))
    folder = RunFolder(tmp_path / "run")
    folder.begin_checkpoint(2, {"step": 2})
    temporary = folder.temporary(2)
    (temporary / "shards").mkdir()
    (temporary / "rank_00000.json").write_bytes(random_states())
    entries, _ = write_file(temporary / "shards/__0_0.distcp", [Piece("w", (4, 2), (0, 0), torch.ones(4, 2))])
    write_index(temporary / "shards", entries, {"optimizer": {"step": 3.0}})
    folder.finish_checkpoint(2, arch, {n: s for n, s in sum_folder(temporary).items() if n != "state.json"})
    checkpoint = folder.folder(2)
    whole = {str(file.relative_to(checkpoint)): file.read_bytes() for file in checkpoint.rglob("*") if file.is_file()}
    states = torch.get_rng_state(), random.getstate()
    refused = 0
    for _ in range(CHECKPOINTS):
        name = r.choice(sorted(whole))
        (checkpoint / name).write_bytes(mangled(r, whole[name]))
        if not name.startswith("manifest"):
            fit_manifest(checkpoint)
        try:
            if problem := check(checkpoint):
                raise UserError(problem)
            check_architecture(checkpoint, arch)
            folder.state(2)
            read_common(checkpoint / "shards")
            Reading(checkpoint / "shards", [Piece("w", (4, 2), (0, 0), torch.zeros(4, 2))]).fill()
            set_random_states(checkpoint / "rank_00000.json")
        except UserError as error:
            assert in_one_line(error), (name, str(error))
            refused += 1
        except Exception as error:
            raise AssertionError((name, (checkpoint / name).read_bytes())) from error
        for one, content in whole.items():
            (checkpoint / one).write_bytes(content)
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    assert refused > CHECKPOINTS // 3
    assert pickle.loads(whole["shards/.metadata"]).state_dict_metadata.keys() == {"w"}  # it was a checkpoint
