"""The keys by which servers know who may ask them: of the run's own, made anew for each launch; of others, the user's.

A key goes in the Authorization header and nowhere else: not into a command line, a log or the run folder.
"""

import os
import secrets

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.sglang.config import API_KEY, SglangConfig


def own_key(config: SglangConfig) -> str:
    """For the servers that the run starts: the user's own of rollout.arguments, or a new one."""
    return str(config.arguments.get(API_KEY) or secrets.token_urlsafe(32))


def others_key(config: SglangConfig) -> str | None:
    """For rollout.servers and the router: what the variable of rollout.api_key_variable has; None if it is null.

    UserError if there is no such variable.
    """
    name = config.api_key_variable
    if name is None:
        return None
    if not os.environ.get(name):
        raise UserError(f"rollout.api_key_variable={name}: the environment of rank 0 has no such variable")
    return os.environ[name]
