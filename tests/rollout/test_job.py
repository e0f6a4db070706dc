"""What is known of a job: who gets which answer, what is missing, what is left for the next one."""

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Leftover, Request
from gcpo_mcore.rollout.sglang.job import Work
from gcpo_mcore.samples import Prompt, Sample

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=8)
SAMPLES = [Sample(number % 2, [number], "") for number in range(6)]


def work(enough: int | None = None) -> Work:
    """Of three prompts with two requests each, dealt to two ranks: the second prompt lies on both."""
    made = [Request(Prompt(p, "s", "", [1], ""), i, seed=i) for p in "abc" for i in range(2)]
    return Work([made[:3], made[3:]], SAMPLING, enough)


def test_every_rank_gets_the_answers_to_its_own_requests():
    job = work()
    job.add([1, 3, 5], {0: SAMPLES[1], 1: SAMPLES[3]}, {2: SAMPLES[5]})
    assert job.answers() == [[None, SAMPLES[1], None], [SAMPLES[3], None, None]]
    assert job.missing() == [0, 2, 4, 5] and job.begun == {5: SAMPLES[5]}


def test_prompts_are_wanted_until_enough_of_them_are_whole():
    job = work(enough=2)
    assert job.prompts_wanted() == 2
    job.add(range(6), {n: SAMPLES[n] for n in (0, 1, 2, 4)}, {})
    assert job.whole_prompts() == ["a"] and job.prompts_wanted() == 1
    job.add([3, 5], {0: SAMPLES[3], 1: SAMPLES[5]}, {})
    assert job.whole_prompts() == ["a", "b", "c"] and job.prompts_wanted() == 0
    assert work(enough=9).prompts_wanted() == work().prompts_wanted() == 3
    assert Work([[], []], SAMPLING, None).prompts_wanted() == 0


def test_what_is_beyond_enough_is_left_and_a_later_job_begins_with_it():
    job = work(enough=1)
    job.add(range(6), {n: SAMPLES[n] for n in (1, 2, 3, 4)}, {5: SAMPLES[5], 0: SAMPLES[0]})
    left = job.drop_surplus()
    assert job.answers() == [[None, None, SAMPLES[2]], [SAMPLES[3], None, None]]  # b is the only whole one
    assert left == {
        ("a", 0): Leftover(SAMPLES[0], is_whole=False),
        ("a", 1): Leftover(SAMPLES[1], is_whole=True),
        ("c", 0): Leftover(SAMPLES[4], is_whole=True),
        ("c", 1): Leftover(SAMPLES[5], is_whole=False),
    }
    later = work(enough=2)
    assert later.begin_with(left) == 2
    assert later.samples == {1: SAMPLES[1], 4: SAMPLES[4]} and later.begun == {0: SAMPLES[0], 5: SAMPLES[5]}
    assert later.missing() == [0, 2, 3, 5]
