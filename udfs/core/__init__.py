"""What all folders share.

metrics.py        the paper's four metrics, in the order used everywhere
arrow_values.py   Python values of Arrow columns
atomic_files.py   files that are there whole or not at all
file_locks.py     a lock between processes
cache_folder.py   where models are cached on this machine
peft_adapters.py  adapter folders: which base model they name, and merging them into it
"""
