"""Real SGLang servers on the CPU, started once for all tests here."""

import contextlib
import os
from pathlib import Path

import pytest

from gcpo_mcore.rollout.sglang.process import ServerProcess
from gcpo_mcore.run.load import load_config
from tests.sglang.real import ROOT, STARTER


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("sglang")


@pytest.fixture(scope="session")
def servers(tmp_path_factory) -> list[str]:
    """The addresses of two servers of the starter model."""
    os.chdir(ROOT)
    logs = tmp_path_factory.mktemp("logs")
    config = load_config(["rollout=sglang_cpu"]).rollout
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(2):
            made.append(ServerProcess(config, str(STARTER), "float32", number, logs / f"{number}.log"))
            stack.callback(made[-1].end)
        for process in made:
            process.wait()
        yield [process.server.url for process in made]
