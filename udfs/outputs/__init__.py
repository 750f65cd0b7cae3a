"""The files that exports write.

shards.py                numbered files of samples, written where the rows are
tar_shards.py            WebDataset shards as img2dataset lays them out
parquet_shards.py        Parquet that Hugging Face `datasets` loads with images
uid_file.py              DataComp's list of uids
upstream_score_files.py  score files as the paper's code leaves them
"""
