"""The ledger of a dispatch: each request is with one server at a time, and answered once, whatever fails."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.ledger import RequestLedger
from gcpo_mcore.samples import Prompt, Sample

A, B, C = URLS = ["http://a", "http://b", "http://c"]
EVENTS = st.sampled_from(["ask", "ask", "answer", "fail", "lose"])
SAMPLES = [Sample(number, [number], "") for number in range(12)]


def ledger(prompts: int, urls=URLS, slots=2, wanted: int | None = None, samples=2) -> RequestLedger:
    """`prompts` prompts of `samples` requests each."""
    made = [Request(Prompt(str(p), "s", "", [1], ""), i, seed=i) for p in range(prompts) for i in range(samples)]
    return RequestLedger(made, urls, slots, prompts if wanted is None else wanted)


def test_a_server_gets_no_more_than_it_takes_on():
    book = ledger(6)
    assert [book.hand_out(A), book.hand_out(A), book.hand_out(A)] == [0, 1, None]
    book.answer(A, 0, SAMPLES[0])
    assert book.hand_out(A) == 6
    assert book.samples == {0: SAMPLES[0]} and book.sent_again == 0


def test_a_prompt_counts_when_its_last_request_is_answered():
    book = ledger(3, [A], slots=9, wanted=1)
    numbers = [book.hand_out(A) for _ in range(6)]
    book.answer(A, numbers[0], SAMPLES[0])
    book.answer(A, numbers[2], SAMPLES[2])
    assert not book.is_done
    book.answer(A, numbers[1], SAMPLES[1])
    assert book.is_done and book.is_ending
    book.call_off(A)
    assert book.sent_again == 0  # nobody asks for them any more


def test_nothing_is_wanted_of_a_ledger_for_no_prompt():
    assert ledger(3, wanted=0).is_done


def test_failures_count_in_a_row_and_tries_for_each_request():
    book = ledger(2, [A], slots=4)
    assert [book.hand_out(A), book.hand_out(A)] == [0, 1]
    book.fail(A, 0)
    assert (book.failures_in_a_row(A), book.tries(0), book.sent_again) == (1, 1, 1)
    assert book.hand_out(A) == 0  # the only server gets it again
    book.fail(A, 0)
    assert (book.failures_in_a_row(A), book.tries(0), book.sent_again) == (2, 2, 2)
    book.answer(A, 1, SAMPLES[1])
    assert (book.failures_in_a_row(A), book.tries(1)) == (0, 1)


def test_what_a_lost_server_had_goes_to_the_others_and_counts_as_sent_again():
    book = ledger(2, [A, B], slots=4)
    assert [book.hand_out(A), book.hand_out(A)] == [0, 1]
    book.lose(A)
    assert book.hand_out(B) == 2
    book.call_off(A)
    assert book.sent_again == 2
    assert sorted(n for n in (book.hand_out(B) for _ in range(5)) if n is not None) == [0, 1, 3]


def test_a_pause_hands_nothing_out_and_sends_nothing_again():
    book = ledger(2, [A], slots=2)
    assert book.hand_out(A) == 0
    book.pause()
    assert book.hand_out(A) is None and book.is_ending and not book.is_done
    book.call_off(A)
    assert book.sent_again == 0


def test_an_answer_to_what_nobody_was_asked_is_an_error():
    book = ledger(2, [A, B])
    number = book.hand_out(A)
    with pytest.raises(ValueError):
        book.answer(B, number, SAMPLES[number])
    book.answer(A, number, SAMPLES[number])
    with pytest.raises(ValueError):
        book.answer(A, number, SAMPLES[number])


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.tuples(EVENTS, st.integers(0, 2)), max_size=60))
def test_every_request_is_out_once_at_a_time_and_answered_once(slots, wanted, events):
    """Servers ask, answer, fail and are lost in any order; the one that is left at the end answers the rest."""
    book, serving, again = ledger(4, slots=slots, wanted=wanted), list(URLS), 0
    out: dict[int, str] = {}

    def whole() -> int:
        return sum(2 * p in book.samples and 2 * p + 1 in book.samples for p in range(4))

    for event, which in events:
        url = serving[which % len(serving)]
        mine = sorted(number for number, at in out.items() if at == url)
        if event == "ask":
            number = book.hand_out(url)
            if number is not None:
                assert number not in out and number not in book.samples and len(mine) < slots
                out[number] = url
        elif event == "lose" and len(serving) > 1:
            serving.remove(url)
            book.lose(url)
            again += 0 if book.is_done else len(mine)
            book.call_off(url)
            out = {number: at for number, at in out.items() if at != url}
        elif mine and event == "answer":
            book.answer(url, mine[0], SAMPLES[mine[0]])
            del out[mine[0]]
        elif mine and event == "fail":
            again += not book.is_done
            book.fail(url, mine[0])
            del out[mine[0]]
        assert book.is_done == (whole() >= wanted)
        assert book.sent_again == again
    last = serving[0]
    for url in serving[1:]:
        book.lose(url)
        book.call_off(url)
    book.call_off(last)
    while (number := book.hand_out(last)) is not None:
        book.answer(last, number, SAMPLES[number])
    assert {number: found.index for number, found in book.samples.items()} == {n: n for n in range(8)}
