"""What a server's own checksums of its weights must be, from the actor's tensors."""

import hashlib
import re
from collections import defaultdict

import torch

from gcpo_mcore.rollout.sglang.server import Server, ServerLost

# Hugging Face name -> (the server's parameter, which has several joined along the rows; the place in it, of how many)
FUSED = [
    (r"(.*)\.q_proj\.(weight|bias)", r"\1.qkv_proj.\2", 0, 3),
    (r"(.*)\.k_proj\.(weight|bias)", r"\1.qkv_proj.\2", 1, 3),
    (r"(.*)\.v_proj\.(weight|bias)", r"\1.qkv_proj.\2", 2, 3),
    (r"(.*)\.mlp\.gate_proj\.(weight)", r"\1.mlp.gate_up_proj.\2", 0, 2),
    (r"(.*)\.mlp\.up_proj\.(weight)", r"\1.mlp.gate_up_proj.\2", 1, 2),
]
VOCABULARY, VOCABULARY_MULTIPLE = ("model.embed_tokens.weight", "lm_head.weight"), 64  # rows of zeros fill it up


class Checksums:
    """Collects a version's tensors; `compare` then holds the servers against them.

    Exact for dense models on servers that keep a parameter on one CPU: their sum is the head of a sha256. A GPU's
    server sums in a way of its own, and a tensor-parallel one has shards: there, servers are compared with each other.
    """

    def __init__(self, servers: list[Server]):
        self.servers = servers
        self.is_wanted = any(
            server.info().keeps_parameters_on_one_cpu for server in servers
        )  # else the tensors need not be looked at
        self.expected: dict[str, str] = {}  # parameter -> checksum, as a server on one CPU reports it
        self.parts: dict[str, dict[int, bytes]] = defaultdict(dict)  # of parameters that are not complete yet

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """One tensor, by its Hugging Face name."""
        if not self.is_wanted:
            return
        place, count = 0, 1
        for pattern, fused, number, of in FUSED:
            if re.fullmatch(pattern, name):
                name, place, count = re.sub(pattern, fused, name), number, of
        tensor = tensor.detach().cpu()
        if name in VOCABULARY:
            tensor = torch.nn.functional.pad(tensor, (0, 0, 0, -len(tensor) % VOCABULARY_MULTIPLE))
        self.parts[name][place] = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        if len(self.parts[name]) == count:
            parts = self.parts.pop(name)
            whole = hashlib.sha256(b"".join(parts[place] for place in sorted(parts)))
            self.expected[name] = whole.digest()[:8].hex()

    def compare(self) -> None:
        """ServerLost, naming the parameter, for the first server whose weights are not the actor's."""
        first: dict[tuple[str, int], list[dict[str, str]]] = {}
        for server in self.servers:
            found = server.checksums()
            info = server.info()
            kind = (info.device, len(found))
            is_comparable = info.keeps_parameters_on_one_cpu and len(found) == 1
            wanted = [self.expected] if is_comparable else first.setdefault(kind, found)
            for rank, (theirs, ours) in enumerate(zip(found, wanted, strict=True)):
                wrong = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
                if wrong:
                    raise ServerLost(f"{server}: checksum of {wrong[0]} on its rank {rank} is not the actor's", server)
