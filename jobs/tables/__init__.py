"""The project's tables, one file a table; Delta by path or by name.

delta.py           Delta tables by path or catalog name: reading, creating, idempotent appends
external_table.py  tables as other tools leave them: CSV, JSON lines, Parquet
pairs.py           pairs of images and captions, and the keys that name one
scores.py          scores: columns, and the rows that need no model
signals.py         cheap signals of pairs
selection.py       what is kept, and why the rest is not
filtered_pairs.py  the kept rows of the pairs table, with their scores
ratings.py         ratings that scores are judged by
runs.py            a row for each run of a job
sql_views.py       views over all of these, for SQL
"""
