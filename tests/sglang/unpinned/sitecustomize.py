"""On the path of a CPU server (rollout.environment.PYTHONPATH): lets it tell its routed experts.

SGLang 0.5.23 pins the buffer of routed experts by CUDA whatever the device, and so cannot start with
enable-return-routed-experts on a CPU. Here that one function does nothing; everything else is SGLang's own.
"""

import sys
from importlib.machinery import PathFinder

MODULE = "sglang.srt.mem_cache.pool_host.common"


class _Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        spec = super().find_spec(fullname, path, target) if fullname == MODULE else None
        if spec is not None:
            execute = spec.loader.exec_module

            def run(module):
                execute(module)
                module._cuda_host_register = lambda *args, **kwargs: None

            spec.loader.exec_module = run
        return spec


sys.meta_path.insert(0, _Finder)
