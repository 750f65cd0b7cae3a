"""Pairs -> a small dual encoder, a baseline in place of CLIP.

job.py  settings, `run` and `main`
"""
