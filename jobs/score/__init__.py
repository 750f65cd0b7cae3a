"""Pairs -> scores: scores the pairs that have no scores yet, slice by slice.

job.py           `run` and `main`
settings.py      the job's settings
table_stream.py  reads a table in slices in one scan, through its catalog
tally.py         rows by status and seconds by stage, so far
pending_rows.py  which rows of the pairs table have no scores yet, and in which slices they are read
"""
