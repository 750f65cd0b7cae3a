"""Images and captions from files or tables -> a pairs table.

job.py             `run` and `main`
settings.py        the job's settings
caption_lists.py   lists of captions -> a caption a row
left_out.py        counts what is left out, and writes the table of it
source_columns.py  a source's rows, and the names that its columns get
table_sources.py   reads Parquet and Delta
parquet_files.py   which Parquet files there are, and which columns of them Spark can read
folder_source.py   reads a folder of images and their captions
caption_files.py   reads tables of captions: CSV, TSV, JSON Lines, JSON, Parquet
caption_table.py   a table of captions, and what is counted of it
json_documents.py  the records of a JSON document of captions
tar_source.py      reads WebDataset tars
sample_source.py   the sample pairs
image_folders.py   matches the images in a folder with the captions in a table
"""
