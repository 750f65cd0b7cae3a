"""A selection -> files that training code takes as they are.

job.py              settings, `run` and `main`
selected_rows.py    the rows of a selection and the columns of its pairs, as every format needs them
uids.py             DataComp's file of uids
shards.py           numbered shards of WebDataset or Parquet, the same for the same tables
upstream_scores.py  score files by tar, as the paper's code leaves them
storage_paths.py    where files can be written that are not tables
"""
