"""The starter model before training: the pre-trained weights are in the right places."""

import math
import random
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from udfs.starter import assembly, vision_tower, wheels
from udfs.starter import model as starter

SENTENCES = (
    "The museum opens at nine in the morning and closes at five, except on Mondays.",
    "Water boils at a lower temperature in the mountains because the pressure of the air falls.",
    "She put the letter back into its envelope and decided not to answer it.",
    "A small boat with a white sail crosses the lake while the sun sets behind the hills.",
    "The diagram shows how energy moves from the sun to plants and then to animals.",
    "He has lived in the same house for forty years, and he knows all of his neighbours.",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return starter.ensure_base()


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and processor, loaded as any user would, without a network."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("loading a local folder went to the network")

    auto_processor: Any = AutoProcessor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return (
            AutoModelForImageTextToText.from_pretrained(folder),
            auto_processor.from_pretrained(folder),
        )


@pytest.fixture
def model(loaded: tuple[Any, Any]) -> Any:
    return loaded[0]


@pytest.fixture(scope="module")
def with_all_layers(loaded: tuple[Any, Any]) -> Any:
    """The model with the language layers that were left out: it can do what SmolLM2 can, if
    everything else (embeddings, norm, tokenizer, template) is right."""
    import copy

    from transformers import LlamaForCausalLM

    text = wheels.locate(wheels.TEXT)
    language_model = LlamaForCausalLM.from_pretrained(text.parent, gguf_file=text.name)
    upper = language_model.model.layers[assembly.LANGUAGE_LAYERS :]
    assert len(upper) == 30 - assembly.LANGUAGE_LAYERS
    model = copy.deepcopy(loaded[0])
    model.model.language_model.layers.extend(upper)
    model.config.text_config.num_hidden_layers = 30
    layers = zip(model.model.language_model.layers, language_model.model.layers, strict=True)
    for layer, original in layers:
        for name, weight in original.state_dict().items():
            assert weight.equal(layer.state_dict()[name]), name
    return model


@pytest.fixture
def processor(loaded: tuple[Any, Any]) -> Any:
    return loaded[1]


def test_loads_as_an_ordinary_folder(model: Any, folder: Path) -> None:
    import torch

    assert type(model).__name__ == "InternVLForConditionalGeneration"
    assert model.dtype == torch.float32
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.get_input_embeddings().weight.shape == (49152, 576)  # not grown
    assert not list(folder.glob("*.bin")) + list(folder.glob("*.py"))
    texts = [p.read_text() for p in folder.iterdir() if p.suffix in {".json", ".md"}]
    assert not any("site-packages" in text for text in texts)  # no path of the building machine
    card = (folder / "README.md").read_text()
    assert "not meaningful" in card
    assert f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.0f}M parameters" in card


def test_vision_features_equal_those_of_the_onnx_file(model: Any, processor: Any) -> None:
    import torch

    full_tower = vision_tower.tower(wheels.locate(wheels.VISION)).eval()
    noise = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    photo = processor.image_processor(_photo(), return_tensors="pt")["pixel_values"]
    pixels = torch.cat([photo, noise])
    for tower, layers, rounding in (
        (model.model.vision_tower, assembly.VISION_LAYERS, 1e-5),  # larger values, so rounded more
        (full_tower, vision_tower.LAYERS, 0),
    ):
        assert len(tower.encoder.layer) == layers
        with torch.no_grad():
            found = tower(pixel_values=pixels).last_hidden_state.numpy()
        expected = _by_onnx(pixels.numpy(), layers)
        assert found.shape == expected.shape == (2, 257, 384)
        np.testing.assert_allclose(found, expected, rtol=rounding, atol=1e-4)
        assert np.abs(expected).mean() > 0.5  # so 1e-4 is small


def _by_onnx(pixels: Any, layers: int) -> Any:
    """The ONNX file's output for these pixels if its final norm reads layer number `layers`."""
    import onnx
    import onnxruntime

    graph = onnx.load(wheels.locate(wheels.VISION))
    last, wanted = (
        f"/backbone/encoder/layer.{n - 1}/Add_1_output_0" for n in (vision_tower.LAYERS, layers)
    )
    norm_nodes = [node for node in graph.graph.node if node.name.startswith("/backbone/layernorm/")]
    for node in norm_nodes:
        for i, name in enumerate(node.input):
            node.input[i] = wanted if name == last else name
    assert [node for node in norm_nodes if wanted in node.input]
    output = norm_nodes[-1].output[0]
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], {"input_image": pixels})[0]  # (B, 257, 384)


def test_language_model_knows_english(with_all_layers: Any, model: Any, processor: Any) -> None:
    shuffled = []
    for i, sentence in enumerate(SENTENCES):
        words = sentence.split()
        random.Random(i).shuffle(words)
        shuffled.append(" ".join(words))
    natural = _perplexity(with_all_layers, processor.tokenizer, SENTENCES)
    assert natural < 60
    assert _perplexity(with_all_layers, processor.tokenizer, shuffled) > 10 * natural
    # Without the upper layers, words are predicted badly, but their order still matters.
    lower = _perplexity(model, processor.tokenizer, SENTENCES)
    assert _perplexity(model, processor.tokenizer, shuffled) > 1.5 * lower


def _perplexity(model: Any, tokenizer: Any, sentences: Any) -> float:
    import torch

    loss, tokens = 0.0, 0
    for sentence in sentences:
        ids = torch.tensor([tokenizer("<|endoftext|>" + sentence)["input_ids"]])
        with torch.no_grad():
            loss += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return math.exp(loss / tokens)


def test_a_prompt_holds_only_the_image_and_the_text(model: Any, processor: Any) -> None:
    question = {"type": "text", "text": "What is the capital of France?"}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": _photo()}, question]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    prompt = processor.decode(inputs["input_ids"][0])
    assert prompt == (
        "<|im_start|><img>" + "<IMG_CONTEXT>" * 64 + "</img>\nWhat is the capital of France?"
    )
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 64
    assert inputs["pixel_values"].shape == (1, 3, 224, 224)


def test_answers_a_chat_with_an_image(with_all_layers: Any, processor: Any) -> None:
    chat = (
        "<|im_start|>user\n<IMG_CONTEXT>\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    inputs = processor(text=chat, images=_photo(), return_tensors="pt")
    answer = with_all_layers.generate(**inputs, max_new_tokens=20, do_sample=False)
    text = processor.decode(answer[0, inputs["input_ids"].shape[1] :])
    assert "Paris" in text
    assert text.endswith("<|im_end|>")


def _photo() -> Any:
    from PIL import Image
    from skimage import data

    photos: Any = data
    return Image.fromarray(photos.coffee())


def test_one_tile_whatever_the_shape(processor: Any) -> None:
    from PIL import Image

    shapes = ((4000, 50), (3, 900), (224, 224))
    images = [Image.new("RGB", shape, (255, 0, 0)) for shape in shapes]
    # Markup in a caption is not a placeholder.
    text = ["<IMG_CONTEXT>\nA clip in a <video> or an <image> tag"] * len(images)
    batch = processor(text=text, images=images, return_tensors="pt")
    assert batch["pixel_values"].shape == (3, 3, 224, 224)
    assert ((batch["input_ids"] == processor.image_token_id).sum(dim=1) == 64).all()
    red = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    colours = batch["pixel_values"].mean(dim=(2, 3)).numpy()
    assert np.allclose(colours, red, atol=1e-5)


def test_each_digit_is_one_token(processor: Any) -> None:
    tokenizer = processor.tokenizer
    digits = {tokenizer.convert_tokens_to_ids(d): d for d in "0123456789"}
    assert len(digits) == 10
    for number in range(101):
        ids = tokenizer(str(number), add_special_tokens=False)["input_ids"]
        assert "".join(digits[i] for i in ids) == str(number)
    assert tokenizer.tokenize("Score:  85")[-3:] == ["ĠĠ", "8", "5"]


def test_special_tokens_are_distinct_and_known(processor: Any, model: Any) -> None:
    tokenizer = processor.tokenizer
    for token in assembly.RENAMED_TOKENS.values():
        assert tokenizer.tokenize(token) == [token]
        assert tokenizer.convert_tokens_to_ids(token) in tokenizer.all_special_ids
    assert tokenizer.tokenize("<issue_start>") != ["<issue_start>"]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == 49152
    # All (nearly) the same vector, so never trained: nothing that SmolLM2 knew was renamed.
    ids = tokenizer.convert_tokens_to_ids(list(assembly.RENAMED_TOKENS.values()))
    vectors = model.get_input_embeddings().weight[ids]
    assert float((vectors - vectors[0]).norm(dim=1).max().detach()) < 0.01 * float(
        vectors[0].norm().detach()
    )


def test_image_tokens_follow_from_the_grid() -> None:
    assert assembly.IMAGE_TOKENS == (vision_tower.GRID // 2) ** 2 == 64
