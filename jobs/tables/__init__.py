"""The project's tables, one file each; Delta by path or by name.

delta.py           Delta tables by path or catalog name: reading, creating, idempotent appends
concurrent_append.py  appends beside other runs: nothing twice, without a lock
external_table.py  reads tables of other tools: CSV, JSON lines, Parquet
pairs.py           pairs of images and captions, and the keys that identify a pair
scores.py          the columns of the scores table
signals.py         cheap signals of pairs
selection.py       the columns of a selection table
filtered_pairs.py  the kept rows of the pairs table, with their scores
ratings.py         the ratings that scores are compared with
export_manifest.py what is in a folder of exported shards, for reading it back
uid_origin.py      whether uids are the user's or made up, as a property of the table
runs.py            one row for each run of a job
sql_views.py       views over all of these, for SQL
"""
