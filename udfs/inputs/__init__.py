"""Reads images, captions and tars. Hostile or broken input gives a reason, never a crash.

images.py       bytes of any web image -> a small RGB picture, within limits of size and memory
folder_walk.py  lists the files below a folder, through links
image_roots.py  reads images by paths in a table, below folders that the user has named
image_files.py  reads the image files of a folder
linked_images.py  reads images of which a table has only the path
captions.py     makes captions safe for a tokenizer and encodes them
image_magic.py  tells an image by its first bytes
separated_values.py  splits CSV into rows; reads the text of files
tars.py         reads WebDataset tars, sample by sample
tar_members.py  the members of a tar, plain or compressed
tar_samples.py  makes rows of the members of a sample
"""
