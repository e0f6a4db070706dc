"""The page of run folders, in a real browser: what it shows, that nothing in it runs, and that it follows a run."""

import http.client
import io
import json
import re
import threading

import pytest
from PIL import Image

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.monitor.records import write_records, write_token_values
from gcpo_mcore.viewing.page import page
from gcpo_mcore.viewing.run_files import RunFiles
from gcpo_mcore.viewing.server import LiveServer
from tests.launching import launch, run
from tests.viewing.browser import Browser

# What a model may write, to break out of where it is shown or to look like something else.
HOSTILE = [
    "</script><script>window.broken = 1</script>",
    "\"'><img src=x onerror='window.broken = 1'>",
    "<style>body { display: none }</style><base href='http://elsewhere.invalid/'>",
    "a\x00b \ud800 lone, \udfff lone, \u202eright to left\u202c \u2066isolated",
    "${window.broken = 1} <!-- \\u003c/script> -->",
    "javascript:window.broken=1 مرحبا 字 🜁",
]
WORDS = "words in prompt, response, reference"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield found
    found.close()


def line(step, number, index, response, **more):
    """A record as a run writes it."""
    record = {
        "step": step, "prompt_id": f"hard:{number}", "source": "hard", "index": index, "prompt": f"{number} + 1 = ?",
        "response": response, "reference": str(number + 1), "reward": 0.0, "reward_parts": {"exact_match": 0.0},
        "is_accurate": False, "is_golden": False, "truncated": False, "grading_failed": "", "tokens": 3,
        "weight_version": step - 1, "advantage": -0.5, "mean_rollout_logp": -0.25,
    }  # fmt: skip
    return json.dumps(record | more, ensure_ascii=False) + "\n"


def write_metrics(folder, steps):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": step, "time_unix_s": 1.8e9 + 60 * step, "reward/mean": step / 10, "actor/grad_norm": None,
         "time_s/step": 3.0, "time_s/sample": 1.0, "time_s/update": 1.5, "memory/update_peak_gib": 2.0,
         "groups/all_wrong_fraction": 0.5}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def write_run(folder, steps=3):
    """A run whose first group is hostile, whose second has a golden answer and a response of two versions."""
    write_metrics(folder, steps)
    for step in range(1, steps + 1):
        lines = [
            line(step, 7, i, text, prompt=text, prompt_id=f"hard:{text}", reference=text)
            for i, text in enumerate(HOSTILE)
        ]
        lines += [
            line(step, 8, 0, "It is 9.", reward=1.0, is_accurate=True, tokens=4, token_versions=[0, 0, 1, 1]),
            line(step, 8, 1, "golden: 9", is_golden=True, reward=1.0, is_accurate=True),
            line(step, 8, 2, "ten", truncated=True, grading_failed="timeout"),
        ]  # fmt: skip
        write_records(folder, step, lines)
    ids = {"ids": [5, 6, 7, 8], "entropy": [0.1, 0.2, 2.0, 0.0], "advantage": [1.5] * 4}
    logp = {
        "logp": [-0.1, -4.0, -0.5, None],
        "old_logp": [-0.2, -4.0, -0.1, -0.3],
        "rollout_logp": [-0.2, -4.1, -0.1, -0.3],
    }
    write_token_values(folder, 1, {6: ids | logp}, lambda ids: ["It", " is", "</script>", "\x00\u202e9"][: len(ids)])
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page of two runs, made by the command."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [str(write_run(folder / name)) for name in ("first", "second <b>run")]
    out = folder / "page.html"
    assert run("tools/view.py", *runs, "--out", str(out)).strip() == str(out)
    return out


def colours(png: bytes) -> int:
    """How many colours a picture has: a blank one has one."""
    return len(Image.open(io.BytesIO(png)).convert("RGB").getcolors(maxcolors=1 << 24))


def test_nothing_that_a_model_wrote_is_html(written):
    text = written.read_text()
    assert "window.broken" not in text and "elsewhere.invalid" not in text  # all of it is packed
    assert re.findall(r"(?:src|href)=[\"']?(?!\$|\{)[^ >]*", text.split("<style>")[0]) == []
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text


def test_hostile_text_is_shown_and_does_nothing(written, browser):
    browser.errors.clear()
    browser.asked.clear()
    for number, said in enumerate(HOSTILE):
        browser.open(f"{written.as_uri()}#/rollouts?run=first&at=2.{number}.{number}")
        shown = browser.wait("document.querySelector('.sample .text:not(.prompt)')?.innerText")
        unseen = re.findall(r"U\+([0-9A-F]{4})", shown)
        assert re.sub(r"U\+([0-9A-F]{4})", lambda code: chr(int(code[1], 16)), shown) == said
        assert bool(unseen) == ("\x00" in said)
    assert browser.value("typeof window.broken") == "undefined"
    assert browser.value("document.querySelectorAll('img, base, iframe, object').length") == 0
    assert browser.errors == [] and {address.partition(":")[0] for address in browser.asked} <= {
        "file",
        "about",
        "data",
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_opens_and_can_be_photographed(written, browser, theme):
    browser.errors.clear()
    browser.open(written.as_uri(), theme=theme)
    browser.wait("document.querySelectorAll('.card path.line').length > 0")
    assert "second <b>run" in browser.text()
    pictures = [browser.photograph()]
    for view, there in [("resources", "rect[fill]"), ("rollouts", ".sample"), ("prompts", ".strip a")]:
        browser.click(f"nav a[href^='#/{view}']")
        browser.wait(f"document.querySelectorAll({json.dumps(there)}).length > 0")
        pictures.append(browser.photograph())
    background = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 100) == (theme == "dark")
    assert all(colours(picture) > 50 for picture in pictures) and browser.errors == []


def test_runs_share_their_axes_and_can_be_hidden(written, browser):
    browser.open(written.as_uri())
    browser.wait("document.querySelectorAll('[data-metric=\"reward/mean\"] path.line').length === 2")
    browser.click("header .name")
    browser.wait("document.querySelectorAll('[data-metric=\"reward/mean\"] path.line').length === 1")


def test_clicks_lead_from_a_group_to_a_sample_and_its_tokens(written, browser):
    browser.open(f"{written.as_uri()}#/rollouts?run=first&step=1")
    browser.click(".chip[data-row='6']")
    browser.wait("document.querySelector('.sample')?.dataset.row === '6'")
    assert "at=1.6.0" in browser.value("location.hash")  # the address is the sample's link
    assert (
        browser.wait("document.querySelector('.versions')?.innerText.replace(/\\s+/g, ' ')")
        == "version 0 2 tokens version 1 2 tokens"
    )
    for look in ("logp", "entropy", "ratio", "mismatch", "version"):
        browser.choose("colour tokens by", look)
        browser.wait(f"location.hash.includes('colour={look}') && document.querySelectorAll('.token').length === 4")
        browser.wait(f"document.querySelector('.scale.{look}')")
    browser.choose("colour tokens by", "entropy")
    browser.wait("document.querySelector('.token.entropy')")
    shares = browser.value(
        "[...document.querySelectorAll('.token')].map(token => token.style.getPropertyValue('--share'))"
    )
    assert shares == ["0.050", "0.100", "1.000", "0.000"]
    assert browser.value("document.querySelectorAll('.token')[2].textContent") == "</script>"
    browser.click(".chip.golden")
    browser.wait("document.querySelector('.sample .badge')?.textContent === 'golden answer'")


@pytest.mark.parametrize(
    ("field", "value", "samples", "groups"),
    [
        ("samples", "golden", 3, 3), ("samples", "truncated", 3, 3), ("samples", "versions", 3, 3),
        ("groups", "allwrong", 18, 18), ("step", "2", 9, 7), ("reward from", "0.5", 6, 3),
        ("prompt id", "hard:8", 9, 3),
        (WORDS, "GOLDEN: 9", 3, 3), (WORDS, "</script><script>", 3, 3),
    ],
)  # fmt: skip
def test_filters_and_search(written, browser, field, value, samples, groups):
    browser.open(f"{written.as_uri()}#/rollouts?run=first&{field.split()[0]}")
    browser.wait("document.querySelector('.total')")
    browser.choose(field, value)
    browser.wait(f"document.querySelector('.list .total')?.textContent === '{samples} samples in {groups} groups'")


def test_many_samples_are_paged_and_unpacked_when_they_are_looked_at(tmp_path, browser):
    write_metrics(tmp_path / "many", 100)
    for step in range(1, 101):
        rows = (
            (step, prompt, i, "so it is. " * 20, {"is_accurate": not (prompt + i) % 3})
            for prompt in range(125)
            for i in range(8)
        )
        write_records(tmp_path / "many", step, (line(*row, **more) for *row, more in rows))
    run_files = RunFiles(tmp_path / "many", samples=100_000)
    run_files.refresh()
    path = tmp_path / "page.html"
    path.write_text("".join(page([run_files], is_live=False)))
    browser.errors.clear()
    browser.open(f"{path.as_uri()}#/rollouts")
    browser.wait("document.querySelector('.list .total')?.textContent === '100,000 samples in 12,500 groups'")
    assert browser.value("document.querySelectorAll('.group').length") == 25
    assert browser.value("store.kept.size") < 5  # of 400
    browser.choose("samples", "right")
    browser.wait("document.querySelector('.list .total')?.textContent.startsWith('33,300 samples')")
    browser.click(".pages button:last-child")
    browser.wait("document.querySelector('.pages span')?.textContent === '2 / 500'")
    assert browser.errors == []


def test_of_more_samples_than_are_wanted_some_steps_are_shown(tmp_path):
    write_run(tmp_path / "x", steps=8)
    few = RunFiles(tmp_path / "x", samples=20)
    few.refresh()
    assert few.index()["every"] == 4 and set(few.index()["columns"]["step"]) == {4, 8}


def test_a_server_follows_a_run_and_answers_to_this_machine_only(tmp_path, browser):
    folder = write_run(tmp_path / "live", steps=1)
    followed = RunFiles(folder, samples=0)
    followed.refresh()
    browser.errors.clear()
    with LiveServer([followed], port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        browser.open(f"{server.address}#/prompts")
        browser.wait("document.querySelectorAll('.strip a').length === 7")
        assert browser.value("document.querySelectorAll('.prompts tbody tr').length") == 7
        write_run(folder, steps=2)
        browser.wait("document.querySelectorAll('.strip a').length === 14")
        browser.open(f"{server.address}#/rollouts?at=2.6.0")
        browser.wait("document.querySelector('.sample .text:not(.prompt)')?.innerText === 'It is 9.'")
        assert browser.errors == []
        answers = {}
        for host in ("127.0.0.1", "elsewhere.invalid"):
            for path in ("/", "/chunk/0/0", "/chunk/0/99", "/../metrics.jsonl"):
                connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
                connection.putrequest("GET", path, skip_host=True)
                connection.putheader("Host", host)
                connection.endheaders()
                answers[host, path] = connection.getresponse().status
        server.shutdown()
    assert [status for (host, _), status in answers.items() if host == "127.0.0.1"] == [200, 200, 404, 404]
    assert {status for (host, _), status in answers.items() if host != "127.0.0.1"} == {403}


def test_a_step_taken_again_after_a_resume_counts_once(tmp_path):
    folder = write_run(tmp_path / "x", steps=3)
    found = RunFiles(folder, samples=0)
    found.refresh()
    before = found.index()
    write_metrics(folder, 2)  # gone back: the third step's samples are of a past that is given up
    assert found.refresh() and set(found.index()["columns"]["step"]) == {1, 2}
    assert found.index()["generation"] > before["generation"]


def test_a_run_that_has_just_begun_can_be_shown(tmp_path, browser):
    (tmp_path / "config.yaml").write_text("algorithm: {name: gcpo}\ntrainer: {steps: 60}\n")
    begun = RunFiles(tmp_path, samples=0)
    begun.refresh()
    path = tmp_path / "page.html"
    path.write_text("".join(page([begun], is_live=False)))
    browser.errors.clear()
    for view in ("curves", "resources", "rollouts", "prompts"):
        browser.open(f"{path.as_uri()}#/{view}")
        browser.wait("document.querySelector('#view')?.childElementCount && document.querySelector('nav .here')")
    assert browser.errors == []


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        RunFiles(tmp_path, samples=0)
    done = launch("tools/view.py", str(tmp_path))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    write_metrics(tmp_path / "x", 1)
    write_records(tmp_path / "x", 1, [line(1, 7, 0, "a"), "nonsense\n"])
    with pytest.raises(UserError, match=r"step_000001\.jsonl, line 2"):
        RunFiles(tmp_path / "x", samples=0).refresh()
