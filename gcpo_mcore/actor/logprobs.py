"""Log-probs and entropy from vocabulary-parallel logits, exact in fp32.

megatron-core's own vocab-parallel cross entropy overwrites its input (so no entropy from the same logits) and
its fused form is 2e-3 off in fp32; hence this one.
"""

import torch
import torch.distributed as dist
from megatron.core import parallel_state


def token_logprobs(
    logits: torch.Tensor, targets: torch.Tensor, vocabulary: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of `targets` and entropy of softmax(logits / temperature), both [n] fp32, on every tensor rank.

    logits      [n, v] this rank's slice of the (padded) vocabulary
    targets     [n] int64 token ids
    vocabulary  the true vocabulary size: columns past it are padding and have probability 0
    """
    group = parallel_state.get_tensor_model_parallel_group()
    return _VocabParallelLogProb.apply(logits, targets, vocabulary, temperature, group)


class _VocabParallelLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, vocabulary, temperature, group):
        width = logits.shape[1]
        first = group.rank() * width
        z = logits.float() / temperature  # [n, v]
        if first + width > vocabulary:
            z[:, max(vocabulary - first, 0) :] = float("-inf")
        top = z.amax(1)
        if group.size() > 1:
            dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
        z -= top.unsqueeze(1)
        p = z.exp()
        is_mine = (targets >= first) & (targets < first + width)
        local = (targets - first).clamp(0, width - 1)
        picked = torch.where(is_mine, z.gather(1, local.unsqueeze(1)).squeeze(1), 0.0)
        weighted = (p * z.masked_fill(p == 0, 0.0)).sum(1)  # 0 * -inf is 0 here
        sums = torch.stack([p.sum(1), picked, weighted])  # [3, n]
        if group.size() > 1:
            dist.all_reduce(sums, group=group)
        total, picked, weighted = sums
        log_total = total.log()
        p /= total.unsqueeze(1)
        entropy = log_total - weighted / total
        ctx.save_for_backward(p, entropy, is_mine, local)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return picked - log_total, entropy

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy):
        p, entropy, is_mine, local = ctx.saved_tensors
        # d logp / dz = onehot - p;   d H / dz = -p (log p + H)
        log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
        grad = p * (-grad_logp.unsqueeze(1) - grad_entropy.unsqueeze(1) * (log_p + entropy.unsqueeze(1)))
        grad.scatter_add_(1, local.unsqueeze(1), (grad_logp * is_mine).unsqueeze(1))
        return (grad / ctx.temperature).to(ctx.dtype), None, None, None, None
