"""Images and captions from anywhere -> a pairs table.

job.py            settings, `run` and `main`
sources.py        what pairs come from: Parquet, Delta, tars, folders, the sample pairs
image_folders.py  images in a folder: which caption of a table belongs to which file
"""
