"""Scores and signals -> a selection, and the pairs it keeps, by rules.

job.py             `run` and `main`
settings.py        the job's settings
joined_signals.py  joins other tables to the scores, so that rules can use their columns
selection.py       makes the rows of a selection table: verdicts, and the signals used
funnel.py          counts how many rows each rule removed, for printing and for the JSON line
what_if.py         compares several rules without writing anything
"""
