"""The files that exports write.

shards.py                what all shards share: samples, statistics, resuming
field_columns.py         the fields of samples as Parquet and JSON hold them
image_encoding.py        re-encodes images as jpg, png or webp, and makes them smaller
tar_shards.py            WebDataset shards in the layout of img2dataset
parquet_shards.py        Parquet that Hugging Face `datasets` loads with images
uid_file.py              the bytes of DataComp's file of uids
upstream_score_files.py  score files in the format of the paper's own code
"""
