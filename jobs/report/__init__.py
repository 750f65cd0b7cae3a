"""A selection -> one HTML page that needs no network.

job.py              settings, `run` and `main`
figures.py          what is counted, exactly
rule_boundaries.py  where the rows that pass a rule end and those that fail it begin
example_pictures.py the pairs whose pictures are shown
"""
