"""A teacher's scores -> a model that scores, with its card.

job.py                 settings, `run` and `main`
instruction_tables.py  the tables that are read: what is trained on, held out, left out and why
examples_folder.py     out of the tables, into the folder of examples that training reads
recipe_file.py         a recipe in YAML, and errors that say the line
"""
