"""Scores and signals -> a selection (and the pairs that it keeps), by rules.

job.py             `run` and `main`
settings.py        the job's settings
joined_signals.py  tables that are joined to the scores, so that rules can use their columns
selection.py       the rows of a selection table: verdicts, and the signals that decided
funnel.py          how many rows each rule took, for people and for the line of JSON
what_if.py         several rules side by side, with nothing written
"""
