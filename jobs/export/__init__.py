"""A selection -> files in the formats that training code reads.

job.py              `run` and `main`
settings.py         the settings
selected_rows.py    the kept rows of a selection and the columns of their pairs, for all formats
uids.py             DataComp's file of uids: the rows sorted by Spark (its bytes: udfs/outputs)
shards.py           numbered shards of WebDataset or Parquet; the same tables give the same shards
column_report.py    names the columns that an export leaves out or writes as another type
dataset_card.py     README.md of a folder of shards, for Hugging Face `datasets`
upstream_scores.py  score files per tar, as the paper's code writes them
storage_paths.py    turns an output path into one that ordinary programs can open
"""
