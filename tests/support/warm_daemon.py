"""Spark's Python daemon, with all that scoring imports already there.

A worker that it forks for a task begins at once. Spark's own daemon leaves the imports to each
worker, and ends those that were idle for a minute: 17 seconds of a core (measured) for a model that
scores in a fraction of one.
"""

import accelerate  # noqa: F401
import torchvision  # noqa: F401
from pyspark.daemon import manager
from transformers import (  # noqa: F401
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPModel,
    CLIPProcessor,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

import udfs.spark  # noqa: F401

if __name__ == "__main__":
    manager()
