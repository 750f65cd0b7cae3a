"""The tree of the tokens of 0..100, and the probabilities read from it."""

from collections.abc import Callable

import numpy as np
import pytest
import tiny_models
import torch

from udfs.scoring import number_tree, readout


def encoder(merges: bool) -> Callable[[str], list[int]]:
    tok = tiny_models.tokenizer(merges=merges)
    return lambda text: list(tok(text, add_special_tokens=False)["input_ids"])


def test_digits_make_a_tree_of_eleven_nodes() -> None:
    start, tree = number_tree.build(encoder(merges=False), "Score: ")
    assert len(start) == len("Score: ")
    assert len(tree.nodes) == 11  # the root, 1..9, and 10, which 100 continues
    assert sorted(node.number for node in tree.nodes) == [-1, *range(1, 11)]
    chains = tree.chains()
    assert {node for chain in chains for node in chain} == set(range(1, 11))


def test_with_whole_numbers_as_tokens_the_root_is_the_only_node() -> None:
    _, tree = number_tree.build(encoder(merges=True), "Score:")
    assert len(tree.nodes) == 1
    assert len(tree.nodes[0].children) == 101
    assert tree.chains() == ((),)


def test_a_word_start_token_before_the_number_belongs_to_the_question() -> None:
    def encode(text: str) -> list[int]:  # "7" after a colon is [space, "7"], as in Llama 2
        head, _, number = text.partition(":")
        return [*head.encode(), 58] + ([999, *number.encode()] if number else [])

    start, tree = number_tree.build(encode, "Score:")
    assert start[-1] == 999
    assert len(tree.nodes) == 11


def test_numbers_spelled_alike_are_refused() -> None:
    with pytest.raises(number_tree.NumberTreeError):
        number_tree.build(lambda text: [1, 2, 3], "Score:")


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("expected", [0, 7, 8, 10, 85, 99, 100])
def test_a_certain_model_gives_its_number(merges: bool, expected: int) -> None:
    """And not 8 or 10 for 85 or 100, which reading a fixed number of tokens would give."""
    encode = encoder(merges)
    start, tree = number_tree.build(encode, "Score:")
    answer = [*encode(f"Score:{expected}")[len(start) :], 300]  # 300: a token that is not a digit
    logits = torch.zeros(1, 1, len(tree.nodes), 1400)
    node = 0
    for token in answer:
        logits[0, 0, node, token] = 30.0
        children = [i for i, n in enumerate(tree.nodes) if n.parent == node and n.token == token]
        if not children:
            break
        node = children[0]
    distribution = readout.distributions(logits, tree)
    assert distribution.sum() == pytest.approx(1)
    assert readout.mode(distribution)[0, 0] == expected
    assert readout.expectation(distribution)[0, 0] == pytest.approx(expected, abs=1e-3)
    assert readout.entropy(distribution)[0, 0] == pytest.approx(0, abs=1e-3)


def test_random_logits_agree_with_the_chain_rule_written_out() -> None:
    encode = encoder(merges=False)
    start, tree = number_tree.build(encode, "Score:")
    logits = torch.randn(2, 3, len(tree.nodes), 300, generator=torch.Generator().manual_seed(0)) * 3
    found = readout.distributions(logits, tree)
    assert found.sum(-1) == pytest.approx(np.ones((2, 3)))
    p = logits[1, 2].double().softmax(-1).numpy()
    digit = {d: encode(f"Score:{d}")[-1] for d in range(10)}
    node = {n.number: i for i, n in enumerate(tree.nodes)}
    begins = sum(p[0, digit[d]] for d in range(10))
    continues = {n: sum(p[node[n], digit[d]] for d in range(10)) for n in range(1, 10)}
    ten = p[0, digit[1]] / begins * p[node[1], digit[0]]
    assert found[1, 2, 0] == pytest.approx(p[0, digit[0]] / begins)
    assert found[1, 2, 8] == pytest.approx(p[0, digit[8]] / begins * (1 - continues[8]))
    assert found[1, 2, 85] == pytest.approx(p[0, digit[8]] / begins * p[node[8], digit[5]])
    assert found[1, 2, 10] == pytest.approx(ten * (1 - p[node[10], digit[0]]))
    assert found[1, 2, 100] == pytest.approx(ten * p[node[10], digit[0]])
