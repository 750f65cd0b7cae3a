"""Scores and ratings -> how far they agree.

job.py               settings, `run` and `main`
rated_scores.py      scores joined to the ratings, with nothing dropped
comparison.py        what is compared with what, and what comes of it
evaluation_table.py  the evaluation as a Delta table
markdown.py          the evaluation in Markdown and on the terminal
output_files.py      all forms in which an evaluation is written
"""
