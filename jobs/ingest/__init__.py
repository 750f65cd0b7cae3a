"""Images and captions from files or tables -> a pairs table.

job.py             `run` and `main`
settings.py        the job's settings
left_out.py        counts what is left out, and writes the table of it
source_columns.py  a source's rows, and the names that its columns get
table_sources.py   reads Parquet and Delta
parquet_files.py   which Parquet files there are, and which columns of them Spark can read
captions/          reads tables of captions
folder_source.py   reads a folder of images and their captions
tar_source.py      reads WebDataset tars
sample_source.py   the sample pairs
image_folders.py   matches the images in a folder with the captions in a table
"""
