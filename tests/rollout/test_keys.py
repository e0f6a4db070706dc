"""Servers listen to those who have their key, and nobody sees it who should not."""

import json

import psutil
import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.http_json import HttpFailure, get, post
from tests.rollout.own import own_engine, weights_of
from tests.rollout.test_sglang_faults import check, engine, requests, servers

MODEL = "qwen2-tied"
OTHERS = "sesame-of-others"


def command_lines() -> list[str]:
    """Of all processes that this one has started."""
    return [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]


@pytest.mark.parametrize("given", [None, "sesame"])
def test_the_runs_own_servers(tmp_path, tiny_models, given):
    """By a key of the run's, or one of the user's: in no command line and no log, though SGLang writes it there."""
    more = [f"+rollout.arguments.api-key={given}"] if given else []
    model = tiny_models[MODEL]
    with own_engine(model, tmp_path, "rollout.memory_saver=true", *more) as made:
        made.update_weights(weights_of(model, 3))
        check(made.generate(requests(8), made.config.sampling), requests(8))
        (arguments,) = [json.loads(file.read_text()) for file in (tmp_path / "servers").glob("*/arguments.json")]
        key = arguments[arguments.index("--api-key") + 1]
        assert key == given or (given is None and len(key) > 30)
        lines = command_lines()
        assert any("--port" in line for line in lines) and not any(key in line for line in lines)
        (server,) = made.fleet.servers()
        for call in (lambda: get(server.url + "/server_info", 60), lambda: post(server.url + "/generate", {}, 60)):
            with pytest.raises(HttpFailure, match="401"):
                call()
    log = (tmp_path / "logs/sglang_0.log").read_text()
    assert "server_args=" in log and "***" in log and key not in log


def test_servers_of_others_and_their_router(tmp_path, tiny_models, monkeypatch):
    monkeypatch.setenv("FAKE_KEY", OTHERS)  # what the server asks for
    monkeypatch.setenv("OUR_KEY", OTHERS)
    model = tiny_models[MODEL]
    with servers(tmp_path, "none", "router") as ((_, address, _), (_, router, _)):
        for more in ([], [f"rollout.router={router}"]):
            keyed = ["rollout.api_key_variable=OUR_KEY", *more]
            with engine(model, tmp_path, [address], *keyed) as (made, config):
                check(made.generate(requests(8), config.sampling), requests(8))
        monkeypatch.setenv("OUR_KEY", "another")
        with pytest.raises(UserError, match="status 401"), engine(model, tmp_path, [address], *keyed[:1]):
            pass
        monkeypatch.delenv("OUR_KEY")
        with pytest.raises(UserError, match=r"rollout\.api_key_variable=OUR_KEY: the environment"):
            engine(model, tmp_path, [address], *keyed[:1]).__enter__()
