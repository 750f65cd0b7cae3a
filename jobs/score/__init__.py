"""Pairs -> scores: scores the pairs that have no scores yet, slice by slice.

job.py           `run` and `main`
settings.py      the job's settings
slices.py        reads, scores and commits slice by slice
slice_queue.py   the slices that are left, beside what other runs have done or work on
scores_writer.py commits the scores of a slice beside other runs
table_stream.py  reads a table in slices in one scan, through its catalog
tally.py         rows by status and seconds by stage, so far
pending_rows.py  which rows of the pairs table have no scores yet, and reads them
"""
