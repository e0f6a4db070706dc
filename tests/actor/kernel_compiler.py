"""Run by test_fused_head.py: python kernel_compiler.py OUT.json

Compiles the kernels for an H100, which needs none, for bf16 and fp32 logits. OUT: by kernel, whether all have code.
"""

import inspect
import json
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gcpo_mcore.actor import logprob_kernels as kernels

H100 = GPUTarget("cuda", 90, 32)
KINDS = {"local": "*i64", "rows": "i32", "width": "i32", "real": "i32", "scale": "fp32"}
CONSTANTS = {"block": kernels.BLOCK, "never": kernels._NEVER}


def compiles(kernel, logits: str) -> bool:
    """Whether there is code for logits of that type."""
    names = inspect.signature(kernel.fn).parameters
    kinds = {**KINDS, "logits": logits, **dict.fromkeys(CONSTANTS, "constexpr")}
    signature = {name: kinds.get(name, "*fp32") for name in names}
    source = ASTSource(kernel, signature, constexprs=CONSTANTS)
    return len(triton.compile(source, target=H100, options={"num_warps": kernels.WARPS}).asm["cubin"]) > 0


def main(out: str) -> None:
    found = {
        kernel.fn.__name__: all(compiles(kernel, logits) for logits in ("*bf16", "*fp32"))
        for kernel in (kernels._row_sums, kernels._to_gradient)
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
