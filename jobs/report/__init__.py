"""A selection -> one HTML page that works offline.

job.py              settings, `run` and `main`
figures.py          the counts, means and correlations of the report
rule_boundaries.py  where the rows that pass a rule end and those that fail it begin
example_pictures.py chooses the pairs whose pictures the report shows
"""
