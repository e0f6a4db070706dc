"""Keys and values of sequences that decode side by side, in one place from their first token to their last."""

import torch


class Cache:
    """Room for `columns` tokens more than the longest prompt has; the first `live` rows are in use.

    keys, values  [layers, rows, kv heads, columns, head dimension]
    bias          [rows, kv heads, 1, columns], what attention adds to a row's scores: -inf before its prompt
    columns       all that there are
    filled        columns that are written. Prompts end in the same one, so each token of all rows goes to the next
    """

    def __init__(self, prompt_tokens: torch.Tensor, columns: int, layers: int, kv_heads: int, head_dim: int, dtype):
        """`prompt_tokens` [rows]: the lengths of the prompts."""
        self.live, self.filled = len(prompt_tokens), int(prompt_tokens.max())
        self.columns = columns = columns + self.filled
        device = prompt_tokens.device
        shape = (layers, self.live, kv_heads, columns, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)  # zeros: a weight of 0 does not silence a nan
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        before = torch.arange(columns, device=device) < self.filled - prompt_tokens.unsqueeze(1)
        bias = torch.zeros(self.live, columns, dtype=dtype, device=device).masked_fill_(before, -torch.inf)
        self.bias = bias[:, None, None].repeat(1, kv_heads, 1, 1)

    def put_prompts(self, layer: int, rows: slice, prompt: torch.Tensor, keys: torch.Tensor, values: torch.Tensor):
        """Writes prompts [prompts, kv heads, tokens, head dimension] to `rows`: to each the one whose number it has in
        `prompt` [rows]."""
        columns = slice(self.filled - keys.shape[2], self.filled)
        self.keys[layer, rows, :, columns] = keys[prompt]
        self.values[layer, rows, :, columns] = values[prompt]

    def put(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the live rows' next token [live, kv heads, head dimension]; returns all that they have [live, kv
        heads, tokens, head dimension]."""
        self.keys[layer, : self.live, :, self.filled] = keys
        self.values[layer, : self.live, :, self.filled] = values
        end = self.filled + 1
        return self.keys[layer, : self.live, :, :end], self.values[layer, : self.live, :, :end]

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copies rows `source` over rows `target`."""
        for layer in (*self.keys, *self.values):  # one by one: all at once would take a copy as large as the cache
            layer[target, :, : self.filled] = layer[source, :, : self.filled]
        self.bias[target] = self.bias[source]
