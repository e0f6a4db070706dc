"""Servers of another node: started again where they end, but not beside an actor that has the GPU."""

import contextlib

import pytest

from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.node import NodeServers
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from tests.jobs import free_port
from tests.rollout.own import calls, deaths, environment


@pytest.fixture
def node(tmp_path, tiny_models, monkeypatch):
    """(config, the node's servers, rank 0's fleet that knows of them), with a server that rests."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("GROUP_RANK", "1")
    overrides = ["rollout=sglang", f"rollout.log_folder={tmp_path}/logs", "rollout.health_every_s=600"]
    config = load_config([*overrides, environment(tmp_path)]).rollout
    folder = str(tiny_models["qwen2-tied"])
    with contextlib.ExitStack() as stack:
        stack.enter_context(process_group(1, 900))
        made = stack.enter_context(contextlib.closing(NodeServers(config, folder, "float32", tmp_path)))
        made.wait()
        elsewhere = config.model_copy(update={"start_servers": 0})
        fleet = Fleet(elsewhere, folder, "float32", tmp_path, made.addresses())
        stack.callback(fleet.close)
        made.rest()
        fleet.rest()
        assert fleet.kept[0].released
        yield made, fleet


def test_a_server_that_ends_while_it_rests_is_started_after_the_rest_and_asked_for_nothing_it_never_gave(
    node, tmp_path, caplog
):
    made, fleet = node
    made.processes[0].end()
    made.look_after_all()
    assert not made.processes[0].is_alive and made.restarts_left == [3]
    fleet.wake("weights")  # the run goes on: it is lost
    assert not fleet.kept[0].released and "is lost" in caplog.text
    made.is_resting = False
    made.look_after_all()
    made.processes[0].wait()
    assert made.restarts_left == [2] and fleet.ready() == fleet.kept
    fleet.wake("weights", "kv_cache", "cuda_graph")
    assert fleet.ready() == fleet.kept and deaths(tmp_path) == []
    assert [call["path"] for call in calls(tmp_path) if "resume" in call["path"]] == []


def test_a_server_that_is_starting_is_waited_for_before_the_rest(node, tmp_path):
    made, fleet = node
    made.is_resting = False
    fleet.wake("weights", "kv_cache", "cuda_graph")
    made.processes[0].end()
    made.look_after_all()
    made.rest()
    assert made.processes[0].server.is_up(60)
    fleet.kept[0].forget()
    fleet.rest()
    assert fleet.kept[0].released and deaths(tmp_path) == []
