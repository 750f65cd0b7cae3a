"""What the other folders share.

metrics.py        the paper's four metrics, in the order used everywhere
arrow_values.py   Arrow columns as Python values
atomic_files.py   writes a file completely or not at all
file_locks.py     a lock between processes
cache_folder.py   where models and JARs are cached on this machine
peft_adapters.py  adapter folders: which base model they name, and merging them into it
"""
