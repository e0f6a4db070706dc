"""SGLang servers that misbehave: every request is answered once, by whoever can.

The servers here are small processes that answer as the real one was recorded to; tests/sglang/ has the real one.
"""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.http_json import get
from gcpo_mcore.rollout.engine import FixedWeights, Leftover, Request
from gcpo_mcore.rollout.sglang.engine import SglangEngine
from gcpo_mcore.rollout.sglang.server import Server, ServerLost
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Prompt

FAKE, FAKE_ROUTER = Path(__file__).with_name("fake_sglang.py"), Path(__file__).with_name("fake_router.py")
WANTED = 60


@contextlib.contextmanager
def servers(folder: Path, *faults: str):
    """(folder, address, process) of a fake server for each fault; of a router for 'router'."""
    with contextlib.ExitStack() as stack:
        made = []
        for number, fault in enumerate(faults):
            place = folder / f"{number}_{fault}"
            place.mkdir()
            script = [str(FAKE_ROUTER), str(place)] if fault == "router" else [str(FAKE), str(place), fault]
            process = stack.enter_context(subprocess.Popen([sys.executable, *script]))
            stack.callback(process.kill)
            made.append((place, process))
        found = []
        for place, process in made:
            while not (place / "port").is_file():
                assert process.poll() is None
                time.sleep(0.02)
            found.append((place, f"http://127.0.0.1:{(place / 'port').read_text()}", process))
        yield found


@contextlib.contextmanager
def engine(model: Path, folder: Path, addresses: list[str], *overrides: str, decode=str):
    """An engine whose servers have weights of version 3."""
    config = load_config(
        [
            "rollout=sglang",
            f"rollout.servers=[{','.join(json.dumps(a) for a in addresses)}]",
            "rollout.start_servers=0",
            "rollout.transport=disk",
            f"rollout.weights_folder={folder}/weights",
            "rollout.health_every_s=0.2",
            "rollout.health_deadline_s=600",
            "rollout.requests_per_server=4",
            *overrides,
        ]
    ).rollout
    with process_group(1, 900), contextlib.closing(SglangEngine(config, str(model), "float32", [1], decode)) as made:
        from transformers import AutoModelForCausalLM

        weights = AutoModelForCausalLM.from_pretrained(model).state_dict()
        made.update_weights(FixedWeights(3, lambda: ((n, t) for n, t in weights.items() if n != "lm_head.weight")))
        yield made, config


def requests(count: int = WANTED) -> list[Request]:
    return [Request(Prompt(f"p:{i // 4}", "p", "", [5, 6, i // 4], ""), i % 4, seed=i) for i in range(count)]


def check(samples, wanted) -> None:
    """Each request has its own answer, in its place."""
    assert len(samples) == len(wanted)
    for request, sample in zip(wanted, samples, strict=True):
        last = request.prompt.token_ids[-1]
        assert sample.index == request.index
        assert sample.response_ids.tolist() == [(last + k) % 16 for k in (1, 2, 3, 4)]
        assert sample.rollout_logp.tolist() == [-0.5, -0.75, -1.0, -1.25]
        assert sample.weight_version == 3 and not sample.truncated


@pytest.mark.parametrize("fault", ["500", "truncated", "aborted", "garbage", "stale", "hang", "slow"])
def test_the_good_server_answers_what_the_other_does_not(tmp_path, tiny_models, fault, caplog):
    # The good one is asked how it does within the same time as the one that will not answer.
    patience = ["rollout.health_deadline_s=4"] if fault == "hang" else []
    with (
        servers(tmp_path, fault, "none") as (bad, good),
        engine(tiny_models["qwen2-tied"], tmp_path, [bad[1], good[1]], *patience) as (made, config),
    ):
        wanted = requests()
        check(made.generate(wanted, config.sampling), wanted)
        metrics = made.metrics()
        lost = metrics["rollout/servers_lost"]
        if fault in ("garbage", "stale", "hang"):  # always wrong
            assert lost == 1
        if fault == "slow":
            assert lost == 0
        assert (metrics["rollout/sent_again"] > 0) == (fault != "slow")
        assert ([r.levelname for r in caplog.records if "is lost" in r.getMessage()] == ["WARNING"]) == bool(lost)
        asked = [json.loads(line) for line in (good[0] / "asked.jsonl").read_text().splitlines()]
        assert len(asked) >= WANTED // 2
        assert len({a["rid"] for a in asked}) == len(asked)
        seeds = {a["sampling_params"]["sampling_seed"] for a in asked}
        assert seeds <= set(range(WANTED)) and all(a["sampling_params"]["stop_token_ids"] == [1] for a in asked)


def test_a_server_that_misses_two_health_checks_is_not_lost(tmp_path, tiny_models):
    """As one whose first passes compile kernels; it answers everything then."""
    with (
        servers(tmp_path, "compiling") as (one,),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1]], "rollout.health_deadline_s=1") as (made, config),
    ):
        check(made.generate(requests(8), config.sampling), requests(8))
        assert made.metrics()["rollout/servers_lost"] == 0


def test_a_killed_server_costs_nothing_but_its_requests(tmp_path, tiny_models):
    with servers(tmp_path, "none", "none") as (one, two):
        done = []

        def decode(ids):  # called for every answer: the second server dies in the middle of the work
            done.append(ids)
            if len(done) == 10:
                two[2].kill()
            return "text"

        with engine(tiny_models["qwen2-tied"], tmp_path, [one[1], two[1]], decode=decode) as (made, config):
            wanted = requests()
            check(made.generate(wanted, config.sampling), wanted)
            assert len(done) == WANTED  # an answer is taken once
            assert made.metrics()["rollout/servers_lost"] == 1
            check(made.generate(wanted, config.sampling), wanted)
            assert made.metrics()["rollout/servers_lost"] == 0


def test_servers_that_all_fail_now_and_then_still_answer_everything(tmp_path, tiny_models):
    with (
        servers(tmp_path, "500", "truncated") as (one, two),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1], two[1]], "rollout.attempts=50") as (made, config),
    ):
        wanted = requests(12)
        check(made.generate(wanted, config.sampling), wanted)


def test_with_enough_prompts_whole_the_others_are_called_off(tmp_path, tiny_models):
    with (
        servers(tmp_path, "held", "none") as (held, fast),
        engine(tiny_models["qwen2-tied"], tmp_path, [held[1], fast[1]]) as (made, config),
    ):
        wanted = requests(24)  # of six prompts, in turn on both servers
        samples = made.finish(made.begin(wanted, config.sampling, enough=2))  # the held server will never answer
        assert (held[0] / "asked.jsonl").is_file()
        answered = [number for number, sample in enumerate(samples) if sample is not None]
        check([samples[number] for number in answered], [wanted[number] for number in answered])
        whole = [p for p in range(6) if all(4 * p + i in answered for i in range(4))]
        assert len(whole) >= 2 and len(answered) < 24
        assert made.metrics()["rollout/servers_lost"] == 0
        (held[0] / "go").touch()
        check(made.generate(wanted[:8], config.sampling), wanted[:8])


def test_a_response_that_was_called_off_goes_on_under_the_weights_of_then(tmp_path, tiny_models):
    with (
        servers(tmp_path, "held", "none") as (held, fast),
        engine(
            tiny_models["qwen2-tied"], tmp_path, [held[1], fast[1]], "rollout.oversampling=2", "rollout.partial=true",
            "algorithm/mismatch=tis", "rollout.sampling.max_response_tokens=6",
        ) as (made, config),
    ):  # fmt: skip
        wanted = requests(8)  # of two prompts: one on each server
        samples = made.finish(made.begin(wanted, config.sampling, enough=1))
        (unfinished,) = {r.prompt.id for r, s in zip(wanted, samples, strict=True) if s is None}
        again = [request for request in wanted if request.prompt.id == unfinished]
        made.metrics()
        (held[0] / "go").touch()
        made.update_weights(FixedWeights(4, made.weights.stream))
        samples = made.finish(made.begin(again, config.sampling, enough=1))
        assert made.metrics()["rollout/continued"] == 4
        asked = [json.loads(line) for place in (held[0], fast[0]) for line in (place / "asked.jsonl").open()]
        for request, sample in zip(again, samples, strict=True):
            last = request.prompt.token_ids[-1]
            # The server had two tokens when it was told to stop; the rest were asked for with these in front.
            assert sample.response_ids.tolist() == [(last + k) % 16 for k in range(1, 7)]
            assert sample.rollout_logp.tolist() == [-0.5, -0.75, -0.5, -0.75, -1.0, -1.25]
            assert sample.token_versions.tolist() == [3, 3, 4, 4, 4, 4] and sample.weight_version == 3
            (rest,) = [a for a in asked if a["input_ids"] == request.prompt.token_ids + sample.response_ids[:2].tolist()
                       and a["sampling_params"]["sampling_seed"] == request.seed]  # fmt: skip
            assert rest["sampling_params"]["max_new_tokens"] == 4


def test_requests_that_one_server_could_take_alone_are_shared(tmp_path, tiny_models):
    with (
        servers(tmp_path, "none", "none") as (one, two),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1], two[1]], "rollout.requests_per_server=256") as made,
    ):
        made[0].generate(requests(), made[1].sampling)
        counts = [len((place / "asked.jsonl").read_text().splitlines()) for place, _, _ in (one, two)]
        assert sum(counts) == WANTED and min(counts) >= WANTED // 2 - 4  # whole groups of 4


def test_an_update_left_half_finished_does_not_block_the_next(tmp_path):
    with servers(tmp_path, "none") as (one,):
        server = Server(one[1], deadline_s=600)
        server.begin_update()  # and then another server was lost
        server.begin_update()
        server.end_update()
        with pytest.raises(ServerLost, match="already open"):
            server.begin_update()
            Server.call(server, "/begin_weight_update", {"selector": "all"})


def test_what_a_server_is_decides_what_it_is_asked(tmp_path, caplog):
    with servers(tmp_path, "old", "new", "ancient") as found:
        old, new, ancient = [Server(address, deadline_s=10) for _, address, _ in found]
        old.begin_update()  # before 0.5.21 there is nothing to open
        assert not old.is_updating and old.info().version == (0, 5, 20) and not old.info().can_sum_weights
        new.begin_update()
        assert new.is_updating
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said == [f"rollout: {new} is SGLang 0.6.0; 0.5.17 to 0.5.23 are known"]
        with pytest.raises(UserError, match=r"is SGLang 0.5.9; at least 0.5.17 is needed"):
            ancient.begin_update()


def test_what_an_earlier_job_left_whole_is_not_asked_again(tmp_path, tiny_models):
    with (
        servers(tmp_path, "none") as (one,),
        engine(
            tiny_models["qwen2-tied"], tmp_path, [one[1]], "rollout.oversampling=2", "rollout.partial=true",
            "algorithm/mismatch=tis",
        ) as (made, config),
    ):  # fmt: skip
        wanted = requests(8)  # of two prompts
        left = made.generate(wanted[4:], config.sampling)
        for request, sample in zip(wanted[4:], left, strict=True):
            made.coordinator.leftovers[request.prompt.id, request.index] = Leftover(sample, is_whole=True)
        asked = (one[0] / "asked.jsonl").read_text()
        samples = made.finish(made.begin(wanted, config.sampling, enough=1))
        assert samples[:4] == [None] * 4
        check(samples[4:], wanted[4:])
        assert (one[0] / "asked.jsonl").read_text() == asked  # one whole prompt is enough
        assert made.metrics()["rollout/continued"] == 4


def test_checksums_that_a_server_cannot_make_are_one_line(tmp_path, tiny_models):
    with (
        servers(tmp_path, "old") as (one,),
        pytest.raises(UserError, match=r"rollout.verify_sync: .* is SGLang 0.5.20 on a CPU, which cannot sum"),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1]], "rollout.verify_sync=true"),
    ):
        pass


def test_prompts_of_a_group_stay_together(tmp_path, tiny_models):
    with (
        servers(tmp_path, "none", "none") as (one, two),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1], two[1]]) as (made, config),
    ):
        made.generate(requests(16), config.sampling)
        groups = [
            {tuple(json.loads(line)["input_ids"]) for line in (place / "asked.jsonl").read_text().splitlines()}
            for place, _, _ in (one, two)
        ]
        assert len(groups[0] | groups[1]) == 4
        assert len(groups[0] & groups[1]) <= 1  # but for the last ones, which an idle server takes over


@pytest.mark.parametrize("is_told", [True, False])
def test_a_server_lost_behind_a_router_costs_nothing_but_its_requests(tmp_path, tiny_models, caplog, is_told):
    """Which requests it had is not known: the router's are all sent again. A router that cannot be told is no harm."""
    with servers(tmp_path, "none", "none", "router") as (one, two, router):
        done = []

        def decode(ids):
            done.append(ids)
            if len(done) == 1:  # with most answers still to come
                two[2].kill()
            return "text"

        if not is_told:
            (router[0] / "refuses").touch()
        overrides = [f"rollout.router={router[1]}", "rollout.attempts=50"]
        with engine(tiny_models["qwen2-tied"], tmp_path, [one[1], two[1]], *overrides, decode=decode) as (made, config):
            wanted = requests()
            check(made.generate(wanted, config.sampling), wanted)
            assert len(done) == WANTED
            metrics = made.metrics()
            assert metrics["rollout/servers_lost"] == 1 and metrics["rollout/sent_again"] > 0
            workers = [worker["url"] for worker in get(f"{router[1]}/workers", 10)["workers"]]
            assert workers == ([one[1]] if is_told else [one[1], two[1]])
            assert ("the router was not told" in caplog.text) != is_told


def test_no_server_left_is_one_clear_error(tmp_path, tiny_models):
    with (
        servers(tmp_path, "hang", "stale") as (one, two),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1], two[1]]) as (made, config),
    ):
        one[2].kill()
        two[2].kill()
        with pytest.raises(UserError, match=r"rollout: no SGLang server is left of http://127.0.0.1:\d+, http://"):
            made.generate(requests(), config.sampling)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_lost_server_elsewhere_is_started_by_the_command_for_it(tmp_path, tiny_models, is_alone):
    """Alone, the step waits for it; beside another, it takes part after the next sync."""
    again = tmp_path / "again"
    again.mkdir()
    with servers(tmp_path, *["none"] * (1 if is_alone else 2)) as found:
        done = []

        def decode(ids):
            done.append(ids)
            if len(done) == 10:
                found[0][2].kill()
                found[0][2].wait()
            return "text"

        addresses = [address for _, address, _ in found]
        command = f"rollout.start_command='{sys.executable} {FAKE} {again} none {{port}}'"
        with engine(tiny_models["qwen2-tied"], tmp_path, addresses, command, decode=decode) as (made, config):
            wanted = requests()
            check(made.generate(wanted, config.sampling), wanted)
            metrics = made.metrics()
            assert metrics["rollout/servers_lost"] == metrics["rollout/servers_started"] == 1
            while not (again / "port").is_file():
                time.sleep(0.02)
            made.update_weights(FixedWeights(3, made.weights.stream))
            assert [str(server) for server in made.fleet.serving] == addresses
            check(made.generate(wanted, config.sampling), wanted)
            assert (again / "asked.jsonl").is_file() and made.metrics()["rollout/servers_lost"] == 0


def test_a_request_that_always_fails_ends_the_run_by_name(tmp_path, tiny_models):
    with (
        servers(tmp_path, "aborted") as (one,),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1]], "rollout.attempts=1") as (made, config),
        pytest.raises(UserError, match=r"phase sample: 1 tries for prompt p:0 failed, the last: a reply of 2 tokens"),
    ):
        made.generate(requests(4), config.sampling)


def test_a_server_that_cannot_start_is_one_line(tmp_path, tiny_models):
    own = ["rollout=sglang", f"rollout.log_folder={tmp_path}/logs"]
    for python, message in [
        (sys.executable, r"rollout: the SGLang server ended; see .*sglang_0.log: .*No module named 'sglang'"),
        ("/nowhere/python", r"rollout.python=/nowhere/python: there is no such interpreter"),
    ]:
        config = load_config([*own, f"rollout.python={python}"]).rollout
        with process_group(1, 900), pytest.raises(UserError, match=message):
            SglangEngine(config, str(tiny_models["qwen2-tied"]), "float32", [1], str)


def test_a_token_outside_the_vocabulary_never_leaves(tmp_path, tiny_models):
    with (
        servers(tmp_path, "none") as (one,),
        engine(tiny_models["qwen2-tied"], tmp_path, [one[1]]) as (made, config),
    ):
        bad = Request(Prompt("p:7", "p", "", [5, 131], ""), 0, seed=1)
        with pytest.raises(UserError, match="phase sample: prompt p:7 has token 131, the model 131 tokens"):
            made.generate([bad], config.sampling)
        assert not (one[0] / "asked.jsonl").exists()
