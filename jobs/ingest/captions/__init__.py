"""Tables of captions of any form -> rows, one caption each.

caption_files.py   reads CSV, TSV, JSON Lines, JSON, Parquet
caption_table.py   a table of captions, and what is counted of it
json_documents.py  the records of a JSON document: an array, COCO's layout
caption_lists.py   lists of captions -> a caption a row
"""
