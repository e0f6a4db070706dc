"""The log-probs of gcpo_mcore/actor/logprobs.py on a GPU: kernels that read each logit once a pass, in large chunks.

Logits stay in the model's dtype, as the product gives them; temperature, softmax and gradient are worked out in fp32 in
registers, and the gradient takes the logits' place. The weight's gradient is summed in fp32 inside the product. Plain
torch makes some 13 passes over a chunk forward and 20 backward.
"""

import functools
import importlib.util
import os
import shutil

import torch
import torch.distributed as dist

LOGITS_PER_CHUNK = 2**28  # one buffer at a time, 512 MiB in bf16: 1,664 tokens at a vocabulary of 152,000
TILE = 128  # rows that a matrix product takes at a time


@functools.cache
def is_possible() -> bool:
    """Whether Triton can build kernels here: it is installed, and so is the C compiler that it calls."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(compiler) and importlib.util.find_spec("triton") is not None


def tokens_at_a_time(tokens: int) -> int:
    """`tokens`, or less by what makes it a multiple of TILE."""
    return tokens - tokens % TILE if tokens > TILE else tokens


class FusedHead(torch.autograd.Function):
    """Log-probs and entropy, each [n] fp32: arguments and results as of `logprobs.token_logprobs`, `tokens` a chunk."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, vocabulary, temperature, group, tokens):
        """See the class."""
        from gcpo_mcore.actor import logprob_kernels  # Triton is not everywhere

        ctx.set_materialize_grads(False)
        width = weight.shape[0]
        first = group.rank() * width
        local, real = targets - first, vocabulary - first
        logp, entropy, log_total = torch.empty(3, len(targets), dtype=torch.float32, device=hidden.device)
        z = None
        for chunk in chunks(len(targets), tokens):
            z = hidden[chunk] @ weight.T  # [c, v]
            top, *sums = logprob_kernels.row_sums(z, local[chunk], real, 1 / temperature)
            total, picked, weighted = _over_slices(top, torch.stack(sums), group)
            logp[chunk] = picked - total.log() - top
            entropy[chunk] = total.log() - weighted / total
            log_total[chunk] = total.log() + top
        # Logits of a single chunk are kept, those of several made again.
        ctx.kept = z if any(ctx.needs_input_grad) and len(targets) <= tokens else None
        ctx.cuts = (1 / temperature, real, tokens)
        ctx.save_for_backward(hidden, weight, log_total, entropy, local)
        return logp, entropy

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy):
        """Gradients of hidden states (this rank's addend) and weight."""
        from gcpo_mcore.actor import logprob_kernels

        hidden, weight, log_total, entropy, local = ctx.saved_tensors
        scale, real, tokens = ctx.cuts
        kept, ctx.kept = ctx.kept, None  # the gradient takes its place: a second backward pass makes it again
        by_logp, by_entropy = (torch.zeros_like(entropy) if g is None else g for g in (grad_logp, grad_entropy))
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for chunk in chunks(len(hidden), tokens):
            z = hidden[chunk] @ weight.T if kept is None else kept
            of_rows = (x[chunk].contiguous() for x in (local, log_total, entropy, by_logp, by_entropy))
            logprob_kernels.to_gradient(z, *of_rows, real=real, scale=scale)
            torch.mm(z, weight, out=grad_hidden[chunk])
            if grad_weight is not None:
                add_product(grad_weight, z.T, hidden[chunk])
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None, None


def chunks(n: int, tokens: int) -> list[slice]:
    """n tokens in slices of at most `tokens`."""
    return [slice(start, start + tokens) for start in range(0, n, tokens)]


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Adds a @ b to `total` (fp32), without rounding on the way and without a tensor of its size."""
    if a.is_cuda and a.dtype is not torch.float32:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(a.float(), b.float())


def _over_slices(top: torch.Tensor, sums: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[3, c] sums over all slices of the vocabulary, from those of this slice above its own maximum `top` [c], which
    becomes that of all. The target's logit comes from the slice that has it."""
    if group.size() == 1:
        return sums
    own = top.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
    total, picked, weighted = sums
    shift = own - top
    sums = torch.stack([total * shift.exp(), picked, (weighted + total * shift) * shift.exp()])
    dist.all_reduce(sums, group=group)
    return sums
