"""Log-probs and entropy from hidden states, exact in fp32, without the logits ever standing in memory whole.

The output layer is applied to a chunk of tokens at a time, over the vocabulary's slices of the tensor group, and once
more in the backward pass: what is kept for it is two numbers a token. Only where one chunk has all tokens are their
log-probs kept. megatron-core's own vocab-parallel cross entropy keeps all logits, gives no entropy, and its fused form
is 2e-3 off in fp32; hence this one. On a GPU kernels do the same (gcpo_mcore/actor/fused_head.py), and are measured
against this.
"""

import torch
import torch.distributed as dist

from gcpo_mcore.actor import fused_head

# 256 MiB a buffer in fp32, of which three live at a time; at a vocabulary of 152,000 still matrices of 441 tokens.
LOGITS_PER_CHUNK = 2**26
# Of a CPU core: 2 MiB in fp32, and matrices that a product still likes.
LOGITS_IN_CACHE, LEAST_IN_CACHE = 2**19, 128
_NEVER = torch.finfo(torch.float32).min / 2  # a logit of probability 0; finite, since 0 * inf is not 0


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    vocabulary: int,
    temperature: float,
    group: dist.ProcessGroup,
    logits_per_chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of `targets` and entropy of softmax(hidden @ weight.T / temperature), both [n] fp32, on every rank.

    hidden            [n, h] the states that predict the targets, the same on every rank of `group`. Their gradient is
                      this rank's addend, to be summed over the group
    weight            [v, h] this rank's rows of the output layer
    targets           [n] int64 token ids
    vocabulary        the true vocabulary size: rows past it are padding and have probability 0
    group             the tensor-parallel group
    logits_per_chunk  logits of this rank that exist at a time
    """
    tokens = max(logits_per_chunk // weight.shape[0], 1)
    if hidden.is_cuda and fused_head.is_possible():
        at_a_time = fused_head.tokens_at_a_time(tokens)
        return fused_head.FusedHead.apply(hidden, weight, targets, vocabulary, temperature, group, at_a_time)
    return _ChunkedHead.apply(hidden, weight, targets, vocabulary, temperature, group, tokens)


def logits_at_a_time(device: torch.device) -> int:
    """How many logits are to exist at a time there."""
    return fused_head.LOGITS_PER_CHUNK if device.type == "cuda" and fused_head.is_possible() else LOGITS_PER_CHUNK


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, vocabulary, temperature, group, tokens):
        ctx.set_materialize_grads(False)
        width = weight.shape[0]
        first = group.rank() * width
        is_mine = (targets >= first) & (targets < first + width)
        local = (targets - first).clamp(0, width - 1)
        logp, entropy, log_total = torch.empty(3, len(targets), dtype=torch.float32, device=hidden.device)
        kept = None
        if any(ctx.needs_input_grad) and 0 < len(targets) <= tokens:
            kept = torch.empty(len(targets), width, dtype=torch.float32, device=hidden.device)
        ctx.cuts = (temperature, vocabulary - first, _at_a_time(hidden, tokens, width))
        for chunk in fused_head.chunks(len(targets), ctx.cuts[2]):
            z = _scaled_logits(hidden[chunk], weight, temperature, vocabulary - first)  # [c, v]
            top = z.amax(1)
            if group.size() > 1:
                dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
            z -= top.unsqueeze(1)
            picked = torch.where(is_mine[chunk], z.gather(1, local[chunk].unsqueeze(1)).squeeze(1), 0.0)
            p = z.exp()
            sums = torch.stack([p.sum(1), picked, p.mul_(z).sum(1)])  # [3, c]
            if group.size() > 1:
                dist.all_reduce(sums, group=group)
            total, picked, weighted = sums
            logp[chunk] = picked - total.log()
            entropy[chunk] = total.log() - weighted / total
            log_total[chunk] = total.log() + top
            if kept is not None:
                torch.sub(z, total.log().unsqueeze(1), out=kept[chunk])
        ctx.save_for_backward(hidden, weight, log_total, entropy, is_mine, local, kept)
        return logp, entropy

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy):
        hidden, weight, log_total, entropy, is_mine, local, kept = ctx.saved_tensors
        temperature, real, at_a_time = ctx.cuts
        grad_logp = torch.zeros_like(entropy) if grad_logp is None else grad_logp
        grad_hidden = torch.empty_like(hidden)
        is_frozen = not ctx.needs_input_grad[1]
        grad_weight = None if is_frozen else torch.zeros_like(weight, dtype=torch.float32)  # chunks are summed in fp32
        for chunk in fused_head.chunks(len(hidden), at_a_time):
            if kept is None:
                log_p = _scaled_logits(hidden[chunk], weight, temperature, real).sub_(log_total[chunk].unsqueeze(1))
            else:
                log_p = kept[chunk]
            # d logp / dz = onehot - p;   d H / dz = -p (log p + H)
            grad = log_p.exp()
            by_logp = grad_logp[chunk].unsqueeze(1)
            if grad_entropy is None:
                grad.mul_(-by_logp)
            else:
                grad.mul_((log_p + entropy[chunk].unsqueeze(1)).mul_(-grad_entropy[chunk].unsqueeze(1)).sub_(by_logp))
            grad.scatter_add_(1, local[chunk].unsqueeze(1), by_logp * is_mine[chunk].unsqueeze(1))
            grad = (grad if temperature == 1 else grad.div_(temperature)).to(weight.dtype)
            grad_hidden[chunk] = grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[chunk]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None, None


def _at_a_time(hidden: torch.Tensor, tokens: int, width: int) -> int:
    """At most `tokens`; on a CPU so few that their logits, which are read several times, stay in its cache."""
    return tokens if hidden.is_cuda else min(tokens, max(LOGITS_IN_CACHE // width, LEAST_IN_CACHE))


def _scaled_logits(hidden: torch.Tensor, weight: torch.Tensor, temperature: float, real: int) -> torch.Tensor:
    """[c, v] fp32 logits / temperature of a chunk; the columns from `real` on are padding."""
    z = (hidden @ weight.T).float()
    if temperature != 1:
        z.div_(temperature)
    if real < z.shape[1]:
        z[:, max(real, 0) :] = _NEVER
    return z
