"""What is read: images, captions, tars. Hostile or broken, it ends in a reason, never in a crash.

images.py       bytes of any web image -> a small RGB picture, with bounds on what one may cost
image_files.py  images by their paths
captions.py     captions made safe for a tokenizer, and their tokens
tars.py         WebDataset tars, sample by sample
"""
