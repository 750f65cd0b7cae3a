"""Executor side: plain Python over plain batches; torch is imported inside functions only.

spark.py  the UDFs, the only file that knows Spark

training/   fine-tuning
models/     loading a model by its kind, once a process, and naming it
baseline/   the small dual encoder that stands in for CLIP
starter/    the starter model, put together from two wheels
signals/    size, language, hashes, text in the image
outputs/    the files that exports write
report/     the report's page and charts
agreement/  how far scores and ratings agree
scoring/    image bytes and captions in, distributions over 0..100 out
inputs/     what is read: images, captions, tars
core/       the metrics, and small things about files and locks

Imports go down this list only.
"""
