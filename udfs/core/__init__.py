"""What the other folders share.

metrics.py          the paper's four metrics, in the order used everywhere
arrow_values.py     Arrow columns as Python values
atomic_files.py     writes a file completely or not at all
file_locks.py       a lock between processes
cache_folder.py     where models and JARs are cached on this machine
checked_weights.py  loads a model's weights and refuses those that are not its own
child_process.py    a function in a process of its own, with limits
free_memory.py      gives memory back to the system
visible_text.py     text from data, made safe to show
error_lines.py      what an error says, in one short line
peft_adapters.py    adapter folders: which base model they name, and merging them into it
weight_files.py     the files of a model folder before they are loaded: whole, and no pickles
"""
