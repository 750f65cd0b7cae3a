"""The starter model's vision tower: reads DINOv2-small from an ONNX file as an InternVL model.

Both have the same structure (class token, layer scale, final layer norm), so nothing is lost:
tests/udfs/starter/test_starter_base.py compares the features with those of the ONNX file itself.
"""

from pathlib import Path
from typing import Any

IMAGE_SIZE = 224  # px
PATCH = 14  # px
GRID = IMAGE_SIZE // PATCH  # patches a side
LAYERS = 12
TRAINED_GRID = 37  # patches a side for which DINOv2's position embeddings were trained

# Initializers that torch's export named by number; the file is pinned by its checksum.
_CLASS_POSITION = "onnx::Concat_1957"  # (1, 1, 384)
_PATCH_POSITIONS = "onnx::Reshape_1962"  # (1, 37 * 37, 384)

_LINEAR = {  # InternVL's name in a layer: DINOv2's
    "attention.q_proj": "attention/attention/query",
    "attention.k_proj": "attention/attention/key",
    "attention.v_proj": "attention/attention/value",
    "attention.projection_layer": "attention/output/dense",
    "mlp.fc1": "mlp/fc1",
    "mlp.fc2": "mlp/fc2",
}
_VECTORS = {
    "layernorm_before.weight": "norm1.weight",
    "layernorm_before.bias": "norm1.bias",
    "layernorm_after.weight": "norm2.weight",
    "layernorm_after.bias": "norm2.bias",
    "lambda_1": "layer_scale1.lambda1",
    "lambda_2": "layer_scale2.lambda1",
}


def config(layers: int = LAYERS) -> Any:
    """An `InternVLVisionConfig` for the first `layers` of DINOv2-small."""
    from transformers import InternVLVisionConfig

    return InternVLVisionConfig(
        hidden_size=384,
        num_hidden_layers=layers,
        num_attention_heads=6,
        intermediate_size=1536,
        attention_bias=True,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
        use_mean_pooling=False,  # true would leave out DINOv2's final layer norm
    )


def tower(onnx_file: Path) -> Any:
    """DINOv2-small with all its layers as an `InternVLVisionModel`, float32."""
    from transformers import InternVLVisionModel

    model = InternVLVisionModel(config())
    model.load_state_dict(weights(onnx_file))
    return model


def processors() -> tuple[Any, Any]:
    """An image processor and a matching video processor (InternVL needs both).

    The whole image is resized to 224 x 224 px (bicubic, without keeping the aspect) and normalised
    as in DINOv2's training.
    """
    from transformers import GotOcr2ImageProcessor, InternVLVideoProcessor
    from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    pixels: dict[str, Any] = {
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 3,  # bicubic
        "image_mean": IMAGENET_DEFAULT_MEAN,
        "image_std": IMAGENET_DEFAULT_STD,
    }
    # InternVLProcessor asks for tiles regardless of crop_to_patches, unless at most one is allowed.
    image = GotOcr2ImageProcessor(crop_to_patches=False, min_patches=1, max_patches=1, **pixels)
    return image, InternVLVideoProcessor(**pixels)


def weights(onnx_file: Path, layers: int = LAYERS) -> dict[str, Any]:
    """The state dict of an `InternVLVisionModel` of the first `layers`, with the final layer norm,
    float32, read from `onnx_file`."""
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(onnx_file).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    # The matrices have no useful names, but the nodes that multiply by them do.
    matrix_names = {n.name: n.input[1] for n in graph.node if n.op_type == "MatMul"}
    state = {
        "embeddings.cls_token": tensors["backbone.embeddings.cls_token"],
        "embeddings.position_embeddings": _positions(tensors),
    }
    for kind in ("weight", "bias"):
        patch_projection = f"embeddings.patch_embeddings.projection.{kind}"
        state[patch_projection] = tensors[f"backbone.{patch_projection}"]
        state[f"layernorm.{kind}"] = tensors[f"backbone.layernorm.{kind}"]
    for i in range(layers):
        ours, theirs = f"encoder.layer.{i}", f"backbone.encoder.layer.{i}"
        for name, vector in _VECTORS.items():
            state[f"{ours}.{name}"] = tensors[f"{theirs}.{vector}"]
        for name, linear in _LINEAR.items():
            matrix = tensors[matrix_names[f"/backbone/encoder/layer.{i}/{linear}/MatMul"]]
            state[f"{ours}.{name}.weight"] = matrix.T.contiguous()  # ONNX: (inputs, outputs)
            state[f"{ours}.{name}.bias"] = tensors[f"{theirs}.{linear.replace('/', '.')}.bias"]
    return state


def _positions(tensors: dict[str, Any]) -> Any:
    """Position embeddings of 1 + 16 * 16 tokens, resampled as the ONNX graph's Resize node does.

    That node is cubic with a = -0.75, half-pixel centres and no antialiasing, which is torch's
    bicubic. Baked in, because `InternVLVisionModel` expects the grid that it is configured for.
    """
    import torch

    grid = tensors[_PATCH_POSITIONS].reshape(1, TRAINED_GRID, TRAINED_GRID, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, size=(GRID, GRID), mode="bicubic", align_corners=False
    )  # (1, 384, 16, 16)
    return torch.cat([tensors[_CLASS_POSITION], grid.flatten(2).transpose(1, 2)], dim=1)
