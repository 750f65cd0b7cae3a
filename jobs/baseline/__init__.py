"""Pairs -> a small dual encoder, the baseline that stands in for CLIP.

job.py  settings, `run` and `main`
"""
