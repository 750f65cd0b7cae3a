"""The tokens with which a tokenizer spells the numbers 0..100, as a tree.

With one token for each digit (Llama 2, Qwen2.5, SmolLM2) the children of the root are the ten
digits, `8` leads to `80`..`89`, and `10` to `100`. With tokens of up to three digits (Llama 3)
all 101 numbers are children of the root. Either way, the probability of a number is the product
along its path, times the probability of ending there if a longer number could follow. So 10 is
never mistaken for 100, as happens when a fixed number of tokens is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

NUMBERS = 101  # 0..100


class NumberTreeError(ValueError):
    """The tokenizer spells some numbers alike, so scores cannot be read with it."""


@dataclass(frozen=True)
class Node:
    """A prefix of a number's tokens that another token may follow.

    `token` is the last token of the prefix (-1 at the root), `parent` the index of the node
    before it, `depth` the number of its tokens, `children` the tokens that may follow, `number` the
    number that it spells if none follows (-1 if it spells none).
    """

    token: int
    parent: int
    depth: int
    children: tuple[int, ...]
    number: int


@dataclass(frozen=True)
class NumberTree:
    """Nodes in breadth-first order (`nodes[0]` is the root) and where each number ends.

    `steps[n]` lists the (node, token) pairs whose probabilities multiply to that of a number that
    begins with `n`; `ends[n]` is the node at which `n` must end, or -1 if nothing could follow.
    """

    nodes: tuple[Node, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]
    ends: tuple[int, ...]

    def chains(self) -> tuple[tuple[int, ...], ...]:
        """Node indices from below the root to each leaf: plain sequences that together visit every
        node, for models whose attention does not accept a block mask."""
        parents = {node.parent for node in self.nodes}
        leaves = [i for i in range(len(self.nodes)) if i not in parents]
        return tuple(self._path(i) for i in leaves) if leaves != [0] else ((),)

    def _path(self, index: int) -> tuple[int, ...]:
        chain: list[int] = []
        while index > 0:
            chain.append(index)
            index = self.nodes[index].parent
        return tuple(reversed(chain))


def common_prefix(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The longest run of tokens that all sequences begin with."""
    first = min(sequences, key=len)
    for i, token in enumerate(first):
        if any(sequence[i] != token for sequence in sequences):
            return list(first[:i])
    return list(first)


def build(encode: Callable[[str], list[int]], question: str) -> tuple[list[int], NumberTree]:
    """Return the tokens of `question` up to the number, and the tree of the numbers' tokens.

    `encode` is the tokenizer without added tokens. Question and number are encoded together,
    because a tokenizer may merge characters of both (or put a word-start token before the number,
    which then belongs to the question). Raises NumberTreeError if two numbers are spelled alike.
    """
    spelled = [encode(f"{question}{number}") for number in range(NUMBERS)]
    start = common_prefix(spelled)
    tails = [tuple(tokens[len(start) :]) for tokens in spelled]
    if len(set(tails)) != NUMBERS or not all(tails):
        raise NumberTreeError("the tokenizer spells different numbers with the same tokens")
    return start, _tree(tails)


def _tree(tails: list[tuple[int, ...]]) -> NumberTree:
    prefixes = sorted({tail[:i] for tail in tails for i in range(len(tail))}, key=_breadth_first)
    index = {prefix: i for i, prefix in enumerate(prefixes)}
    numbers = {tail: number for number, tail in enumerate(tails)}
    nodes = tuple(
        Node(
            token=prefix[-1] if prefix else -1,
            parent=index[prefix[:-1]] if prefix else -1,
            depth=len(prefix),
            children=tuple(sorted({t[len(prefix)] for t in tails if _continues(t, prefix)})),
            number=numbers.get(prefix, -1),
        )
        for prefix in prefixes
    )
    steps = tuple(tuple((index[t[:i]], t[i]) for i in range(len(t))) for t in tails)
    return NumberTree(nodes, steps, tuple(index.get(tail, -1) for tail in tails))


def _breadth_first(prefix: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(prefix), prefix


def _continues(tail: tuple[int, ...], prefix: tuple[int, ...]) -> bool:
    return len(tail) > len(prefix) and tail[: len(prefix)] == prefix
