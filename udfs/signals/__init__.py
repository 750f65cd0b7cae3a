"""Cheap signals of pairs, from image bytes and captions, without a model that scores.

rows.py           a pair in, its signals out; batches of them, for `DataFrame.mapInArrow`
image_size.py     width and height, from the header
perceptual.py     perceptual hashes, and the keys that find similar ones
shingles.py       shingles of captions, and the keys that find similar captions
language.py       the language of a caption, with its probability
text_in_image.py  reads the text in a picture; its overlap with the caption
"""
