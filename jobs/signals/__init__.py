"""Pairs -> cheap signals: size, language, lengths, duplicates, text in the image.

job.py              settings, `run` and `main`
near_duplicates.py  groups of rows with nearly the same image or caption
"""
