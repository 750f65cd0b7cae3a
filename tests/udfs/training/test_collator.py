"""How an image with its captions, questions and answers becomes a sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_examples
import tiny_models

from udfs.scoring.token_tree import ROOT, TokenTree
from udfs.training.balanced_sampler import Item
from udfs.training.collator import PackedDataset, collate
from udfs.training.run import make_trainer


def dataset(folder: Path, work: Path, **settings: Any) -> PackedDataset:
    examples = tiny_examples.write(work / "examples")
    chosen = tiny_examples.settings(packed="no", **settings)
    return make_trainer(tiny_examples.run(folder, examples, work, settings=chosen)).dataset


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("llava"))


def items_of(data: PackedDataset) -> list[Item]:
    return list(data.sampler)


def text_along(data: PackedDataset, tree: TokenTree, index: int) -> str:
    ids = [tree.ids[i] for i in tree.path(index)]
    return str(data.processor.tokenizer.decode(ids))


def test_a_tree_shares_what_branches_have_in_common() -> None:
    tree = TokenTree()
    tip = tree.extend(ROOT, [1, 2])
    left, right = tree.extend(tip, [3]), tree.extend(tip, [4, 5])
    assert tree.path(right) == [0, 1, 3, 4]
    assert tree.leaves() == [left, right]
    assert tree.depths == [0, 1, 2, 2, 3]
    related = tree.related()
    assert related[4].tolist() == [True, True, False, True, True]
    assert related[2].tolist() == [True, True, True, False, False]
    assert (related == related.T).all()


def test_a_reason_follows_the_number(llava: Path, tmp_path: Path) -> None:
    data = dataset(llava, tmp_path)
    item = next(i for i in items_of(data) if any(r.reason for _, rows in i.captions for r in rows))
    packed = data[item]
    columns, asked = packed.numbers[0]
    assert text_along(data, packed.tree, columns[0]).endswith(
        f"{asked.caption}\nR:{data.prompt.questions[asked.metric]}<|im_end|>\n<|im_start|>assistant\n"
    )
    # The tokens to be predicted are those of the reasons, one after the other.
    said = data.processor.tokenizer.decode([token for _, token in packed.tokens])
    reasons = [row.reason for _, rows in item.captions for row in rows]
    assert said == "".join(f"\n{reason}<|im_end|>" for reason in reasons)
    first, _ = packed.tokens[0]
    assert text_along(data, packed.tree, first).endswith(str(round(asked.score)))


def test_in_a_chain_of_thought_the_number_follows_the_reason(llava: Path, tmp_path: Path) -> None:
    data = dataset(llava, tmp_path, style="chain_of_thought")
    item = next(i for i in items_of(data) if any(r.reason for _, rows in i.captions for r in rows))
    packed = data[item]
    columns, asked = packed.numbers[0]
    assert text_along(data, packed.tree, columns[0]).endswith(f"assistant\n{asked.reason}\n")


def test_an_assistants_turns_are_what_a_conversation_teaches(llava: Path, tmp_path: Path) -> None:
    data = dataset(llava, tmp_path, mix=0.5)
    item = next(item for item in items_of(data) if item.conversation == 0)
    packed = data[item]
    said = data.processor.tokenizer.decode([token for _, token in packed.tokens])
    assert said == "red<|im_end|>\nyes<|im_end|>\n"
    assert packed.head.pixels
    batch = collate([packed])
    assert batch["number_columns"].shape == (0, 1)
    assert len(batch["tokens"]) == len(packed.tokens)


def test_a_caption_cannot_smuggle_in_a_picture(llava: Path, tmp_path: Path) -> None:
    data = dataset(llava, tmp_path)
    item = items_of(data)[0]
    (_, rows), *_ = item.captions
    packed = data[item._replace(captions=(("<image><|im_end|>", rows),))]
    image = data.processor.tokenizer.convert_tokens_to_ids("<image>")
    assert image not in packed.tree.ids


def test_a_batch_is_padded_on_the_right_and_padding_is_related_to_nothing(
    llava: Path, tmp_path: Path
) -> None:
    data = dataset(llava, tmp_path)
    packed = [data[item] for item in items_of(data)[:3]]
    batch = collate(packed)
    assert batch["input_ids"].shape[1] % 16 == 0
    for row, item in enumerate(packed):
        end = len(item.head.ids) + len(item.tree)
        assert not batch["related"][row, end:].any()
        assert not batch["related"][row, :end, end:].any()
        assert batch["answers"][row, : len(item.head.ids)].sum() == 0
        for columns, _ in item.numbers:  # the question's end is not part of the answer, digits are
            first = len(item.head.ids)
            assert [bool(batch["answers"][row, first + c]) for c in columns] == [
                False,
                *[True] * (len(columns) - 1),
            ]
    assert batch["groups"].tolist() == [
        row * 4 + asked.metric for row, item in enumerate(packed) for _, asked in item.numbers
    ]
