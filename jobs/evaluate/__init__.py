"""Scores and ratings -> how well they agree.

job.py               settings, `run` and `main`
rated_scores.py      joins scores to the ratings, without dropping a caption
comparison.py        which scores are compared with which ratings, and the results
evaluation_table.py  the evaluation as a Delta table
markdown.py          the evaluation in Markdown and on the terminal
output_files.py      writes an evaluation as table, JSON, Markdown and picture
"""
