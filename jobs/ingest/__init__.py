"""Images and captions from files or tables -> a pairs table.

job.py            settings, `run` and `main`
sources.py        reads Parquet, Delta, tars, folders of images, the sample pairs
image_folders.py  matches the images in a folder with the captions in a table
"""
