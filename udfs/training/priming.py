"""Where `attend` begins: heads that already look at an image where its caption says so.

A low-rank adapter begins at nothing, and queries and keys that have nothing to do with each other
are slow to find one another: all that a step knows is how little their product tells. But the best
linear comparison of captions and images at some depth is known in closed form, canonical
correlation (Hotelling 1936), from a couple of thousand pairs. `prime` writes it into the adapters
of one layer's queries and keys, and `attend` goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.training.student import Student

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1.0
"""Of the covariances, in units of their mean variance: thousands of pairs for hundreds of
dimensions would be learned by heart otherwise."""
LOGIT = 1.0
"""Spread of the attention logits of pairs that do not match, after priming."""


def prime(student: Student, depth: int, captions: Tensor, images: Tensor) -> None:
    """Let heads of the layer with `depth` layers below it compare captions with images.

    `captions` and `images` (N, D) are the mean states, as the layer's projections read them, of N
    pairs that match. Of the groups of heads that share keys a third keeps what it was. Only the
    half of a head's rotary dimensions that turn slowly is used: there a product hardly depends on
    how far apart caption and image stand (Su et al., arXiv 2104.09864).

    Raises ValueError for a student without an adapter.
    """
    import torch

    attention = student.core.language_model.layers[depth].self_attn
    queries, keys = attention.q_proj, attention.k_proj
    if not hasattr(queries, "lora_A"):
        raise ValueError("priming writes into an adapter (lora), and this recipe has none")
    size = attention.head_dim
    slow = torch.cat([torch.arange(size // 4, size // 2), torch.arange(3 * size // 4, size)])
    rank = min(len(slow), queries.lora_A["default"].weight.shape[0])
    q, k, left, right = _canonical(captions.double(), images.double(), rank)
    # Neither projection has a bias to take the mean away: what lies along it is left out.
    left, right = (
        _without(left, captions.double().mean(dim=0)),
        _without(right, images.double().mean(dim=0)),
    )
    logits = (q @ left) @ (k @ right).T
    scale = queries.scaling["default"] * keys.scaling["default"] * attention.scaling
    gain = float(LOGIT / (logits.std() * scale)) ** 0.25  # shared by four matrices
    groups = keys.out_features // size
    for layer, directions, each in (
        (queries, left, queries.out_features // size // groups),
        (keys, right, 1),
    ):
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        with torch.no_grad():
            down[:rank] = (gain * directions.T).to(down)
            up.zero_()
            for head in range(each * max(1, groups - groups // 3)):
                up[head * size + slow[:rank], torch.arange(rank)] = gain


def _canonical(
    captions: Tensor, images: Tensor, rank: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both as deviations from their means, and for each the directions (D, R) along which they
    correlate most, weighted so that their inner product is the comparison."""
    import torch

    q, k = captions - captions.mean(dim=0), images - images.mean(dim=0)
    white = [_whitening(x.T @ x / len(x)) for x in (q, k)]
    u, s, v = torch.linalg.svd(white[0] @ (q.T @ k / len(q)) @ white[1])
    root = s[:rank].sqrt()
    return q, k, white[0] @ u[:, :rank] * root, white[1] @ v[:rank].T * root


def _whitening(covariance: Tensor) -> Tensor:
    import torch

    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    found: Tensor = (vectors / (values + RIDGE * values.mean()).sqrt()) @ vectors.T
    return found


def _without(directions: Tensor, mean: Tensor) -> Tensor:
    unit = mean / mean.norm().clamp(min=1e-9)
    rest: Tensor = directions - unit[:, None] * (unit @ directions)[None]
    return rest
