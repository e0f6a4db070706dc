"""What a grading worker is kept from: the trainer's environment, with its secrets, and the network.

Neither is a wall against code that means it (a worker is a process of the same user); it is one against an answer that
a reward evaluates carelessly, and against what is there by accident.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Mapping

# What a Python process needs to find its files, write text and say the time.
VARIABLES = {
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "HF_HOME",
    "HF_HUB_OFFLINE", "NLTK_DATA", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE",
    "PYTHONWARNINGS",
}  # fmt: skip
OF_NETWORK = {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}  # in either case; a proxy's may hold a password
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h


def environment(present: Mapping[str, str], added: Iterable[str], has_network: bool) -> dict[str, str]:
    """What of the `present` variables a worker gets: those above, LC_*, the `added` names; proxies with the network."""
    wanted = {*VARIABLES, *added}
    return {
        name: value
        for name, value in present.items()
        if name in wanted or name.startswith("LC_") or (has_network and name.lower() in OF_NETWORK)
    }


def leave_network() -> str | None:
    """Takes the network away from this process and its children; why that cannot be, or None. Loopback goes as well.

    To be called before there is a second thread. A user who may not make a network namespace gets one of a user
    namespace of its own, with the ids that it had.
    """
    if sys.platform != "linux":
        return f"there is no way on {sys.platform}"
    unshare, user, group = ctypes.CDLL(None, use_errno=True).unshare, os.geteuid(), os.getegid()
    if unshare(CLONE_NEWNET) == 0:
        return None
    if unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return os.strerror(ctypes.get_errno())
    for file, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            with open(f"/proc/self/{file}", "w") as opened:
                opened.write(content)
        except OSError:  # without the maps it is nobody to itself, but its files are still its own
            break
    return None
