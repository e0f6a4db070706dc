"""The rules by which requests go to servers; each request is with one server at a time, whatever fails."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.backlog import Backlog
from gcpo_mcore.samples import Prompt

A, B, C = URLS = ["http://a", "http://b", "http://c"]


def backlog(prompts: int, samples: int = 2, urls=URLS) -> Backlog:
    """`prompts` prompts of `samples` requests each."""
    made = [Request(Prompt(str(p), "s", "", [1], ""), i, seed=i) for p in range(prompts) for i in range(samples)]
    return Backlog(made, urls)


def drain(waiting: Backlog, url: str, serving=URLS, full=()) -> list[int]:
    """All that a server gets when nothing else happens."""
    got = []
    while (number := waiting.next(url, serving, full)) is not None:
        got.append(number)
    return got


def test_the_requests_of_a_prompt_stay_together():
    waiting = backlog(6)
    assert [drain(waiting, url) for url in URLS] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


def test_a_server_helps_only_where_no_more_can_be_taken_on():
    waiting = backlog(6)
    drain(waiting, A)
    assert waiting.next(A, URLS, full=[]) is None and waiting.has_for(B)
    assert waiting.next(B, URLS, full=[]) == 2
    assert waiting.next(A, URLS, full=[B, C]) == 4  # C has more left
    assert drain(waiting, A, full=[B]) == [3, 8, 9]


def test_what_a_lost_server_had_goes_to_the_others():
    waiting = backlog(3)
    assert drain(waiting, A, serving=[A, B]) == [0, 1, 4, 5]


def test_a_failed_request_goes_elsewhere_and_back_only_if_all_failed_it():
    waiting = backlog(1, samples=1, urls=[A, B])
    assert waiting.next(A, [A, B], []) == 0
    waiting.failed(0, A)
    waiting.put_back([0])
    assert waiting.next(A, [A, B], []) is None
    assert waiting.next(B, [A, B], []) == 0
    waiting.failed(0, B)
    waiting.put_back([0])
    assert waiting.next(A, [A, B], []) == 0


def test_what_is_put_back_comes_first():
    waiting = backlog(3)
    assert [waiting.next(A, URLS, []), waiting.next(A, URLS, [])] == [0, 1]
    waiting.put_back([0, 1])
    assert drain(waiting, A) == [0, 1]


EVENTS = st.tuples(
    st.sampled_from(["ask", "answer", "fail", "lose"]), st.integers(0, 2), st.sets(st.sampled_from(URLS))
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_every_request_is_out_once_at_a_time_and_none_is_lost(events):
    """Servers ask, fail and are lost in any order; the one that is left at the end gets all that was not answered."""
    requests = 8
    waiting, serving = backlog(4), list(URLS)
    out: dict[int, str] = {}
    answered: set[int] = set()
    for event, which, full in events:
        url = serving[which % len(serving)]
        mine = sorted(number for number, at in out.items() if at == url)
        if event == "ask":
            number = waiting.next(url, serving, full - {url})
            if number is not None:
                assert number not in out and number not in answered
                out[number] = url
        elif event == "lose" and len(serving) > 1:
            serving.remove(url)
            waiting.put_back(mine)
            out = {number: at for number, at in out.items() if at != url}
        elif mine and event in ("answer", "fail"):
            del out[mine[0]]
            if event == "answer":
                answered.add(mine[0])
            else:
                waiting.failed(mine[0], url)
                waiting.put_back(mine[:1])
    waiting.put_back(sorted(out))
    assert sorted(drain(waiting, serving[0], serving[:1])) == sorted(set(range(requests)) - answered)
