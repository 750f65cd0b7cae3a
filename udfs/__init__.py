"""Executor side: plain Python over plain batches; torch is imported inside functions only.

spark.py  the UDFs, the only file that imports Spark

training/   fine-tuning
models/     loads a model by its kind, once in each process, and computes its id
baseline/   the small dual encoder that stands in for CLIP
starter/    the starter model, assembled from two wheels
signals/    size, language, hashes, text in the image
outputs/    the files that exports write
report/     the report's page and charts
agreement/  how well scores and ratings agree
scoring/    image bytes and captions in, distributions over 0..100 out
inputs/     reads images, captions and tars
core/       the metrics; helpers for files, locks and adapters

Imports go down this list only.
"""
