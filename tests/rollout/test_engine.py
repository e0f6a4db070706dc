"""What every engine inherits."""

import pytest

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request
from gcpo_mcore.samples import Prompt, Sample


class Forgetful(Engine):
    """Answers all but the last request."""

    version = 0

    def update_weights(self, weights):
        pass

    def begin(self, requests, sampling, enough=None):
        return Job(requests, sampling)

    def finish(self, job):
        return [Sample(request.index, [1], "") for request in job.requests[:-1]] + [None]

    def close(self):
        pass


def test_generate_gives_every_sample_or_says_so():
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=8)
    requests = [Request(Prompt("p", "s", "", [1], ""), i, seed=i) for i in range(3)]
    with pytest.raises(RuntimeError, match="phase sample: 1 of 3 requests got no sample"):
        Forgetful().generate(requests, sampling)
