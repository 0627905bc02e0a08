"""A decoder-only transformer, the architecture of language models [vaswani2017attention, radford2019gpt2].

As GPT-2: norms before attention and MLP, learned positions, GELU, residual projections drawn smaller the deeper the
network. Differs in a last layer of its own, with a bias, where GPT-2 shares the token embedding, and in the exact GELU.
Names follow timm (`blocks.0.attn.qkv`), as those of the vision transformer do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import Block, head


class Decoder(nn.Module):
    """Tokens and positions embedded, causal blocks, norm, linear."""

    def __init__(self, vocabulary: int, context: int, blocks: nn.Sequential, dim: int) -> None:
        super().__init__()
        self.token_embed = nn.Embedding(vocabulary, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, context, dim))
        self.blocks = blocks
        self.norm = nn.LayerNorm(dim)
        self.head = head(dim, vocabulary)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                residual = name.endswith(("attn.proj", "mlp.fc2"))
                nn.init.normal_(module.weight, std=0.02 / (2 * len(blocks)) ** 0.5 if residual else 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Token numbers `(N, T)`, int64, T up to the context, to the scores of each next token `(N, T, num_classes)`."""
        tokens, context = ids.shape[1], self.pos_embed.shape[1]
        # A slice of everything would stay in the trace as an operator of its own.
        positions = self.pos_embed if tokens == context else self.pos_embed[:, :tokens]
        scores: Tensor = self.head(self.norm(self.blocks(self.token_embed(ids) + positions)))
        return scores


def decoder(num_classes: int = 256, in_chans: int = 128, dim: int = 192, depth: int = 6, heads: int = 6) -> nn.Module:
    """A language model of `num_classes` tokens that sees up to `in_chans` of them at a time [radford2019gpt2].

    Inputs are token numbers, int64; the scores at position `t` are those of token `t + 1`. Raises `PreconditionError` where
    heads do not divide `dim`, or without tokens or blocks.
    """
    if depth < 1:
        raise PreconditionError(f"a decoder needs at least one block, not depth={depth}")
    blocks = nn.Sequential(*(Block(dim, heads, causal=True) for _ in range(depth)))
    return Decoder(num_classes, in_chans, blocks, dim)
