"""The files that exports write.

shards.py                what all shards share: samples, statistics, resuming
tar_shards.py            WebDataset shards in the layout of img2dataset
parquet_shards.py        Parquet that Hugging Face `datasets` loads with images
uid_file.py              the bytes of DataComp's file of uids
upstream_score_files.py  score files in the format of the paper's own code
"""
