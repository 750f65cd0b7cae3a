"""Pairs -> scores: scores the pairs that have no scores yet, slice by slice.

job.py           `run` and `main`
settings.py      the job's settings
pending_rows.py  which rows of the pairs table have no scores yet, and in which slices they are read
"""
