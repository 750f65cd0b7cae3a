"""Cheap signals of pairs, executor side: plain Python over bytes and text; knows no Spark.

rows.py           a pair in, its signals out; batches of them, for `DataFrame.mapInArrow`
image_size.py     width and height, from the header
perceptual.py     a hash that pictures which look alike share, and the keys that find such hashes
shingles.py       what a caption is made of, and the keys that find captions made of the same
language.py       which language a caption is in, and how sure that is
text_in_image.py  text that can be read in a picture, and how much of a caption it holds
"""
