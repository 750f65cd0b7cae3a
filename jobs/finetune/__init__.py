"""A teacher's answers -> a model that scores, with its card.

job.py                 `run` and `main`
settings.py            the job's settings
instruction_tables.py  the tables of a teacher's scores and of images, checked; what is held out
conversation_table.py  general visual instructions: LLaVA's JSON, or a table
examples_folder.py     out of the tables, into the folder of examples that training reads
model_card.py          the model card: agreement, data, losses, settings
"""
