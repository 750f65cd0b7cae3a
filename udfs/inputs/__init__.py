"""Reads images, captions and tars. Hostile or broken input gives a reason, never a crash.

images.py       bytes of any web image -> a small RGB picture, within limits of size and memory
folder_walk.py  lists the files below a folder, through links
image_files.py  reads image files by path
captions.py     makes captions safe for a tokenizer and encodes them
tars.py         reads WebDataset tars, sample by sample
"""
