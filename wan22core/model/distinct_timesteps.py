"""What a forward makes of the timestep alone, made once for each distinct timestep instead of once for each token.

With ``expand_timesteps`` the pipeline gives every token a timestep of its own. In text-to-video they are all equal, in
image-to-video those of the first latent frame are another: one or two distinct values, where the stock transformer
embeds and projects thousands of equal rows, and every block reads six vectors a token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def embed_distinct_timesteps(transformer: Any) -> None:
    """From now on the ``WanTransformer3DModel`` embeds each distinct timestep once."""
    embedder = transformer.condition_embedder
    embedder.forward = partial(_forward, embedder.forward)


def _forward(
    stock: Any,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_hidden_states_image: torch.Tensor | None = None,
    timestep_seq_len: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As ``WanTimeTextImageEmbedding.forward``: embeddings (batch, tokens, width) and projections (..., 6 x width).

    For one distinct timestep both are (1, 1, ...): everything that is done with them broadcasts over the tokens.
    """
    if timestep_seq_len is None:
        return stock(timestep, encoder_hidden_states, encoder_hidden_states_image)
    distinct, index = torch.unique(timestep, return_inverse=True)
    embedding, projection, text, image = stock(
        distinct, encoder_hidden_states, encoder_hidden_states_image, timestep_seq_len=len(distinct)
    )
    if len(distinct) > 1:
        rows = index.unflatten(0, (-1, timestep_seq_len))
        embedding, projection = embedding[0, rows], projection[0, rows]
    return embedding, projection, text, image
