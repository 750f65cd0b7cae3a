"""Spark's Python daemon, with everything that scoring needs already imported.

So the workers that it forks for tasks start at once. With Spark's own daemon every worker does the
imports itself, and workers that are idle for a minute are ended: 17 seconds of a core (measured),
for a model that scores in a fraction of a second. Rows of `poison.py` act in what it forks.
"""

from importlib import import_module

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
    import_module("tests.support.poison").install()
    manager()
