"""The starter model as an ordinary Hugging Face folder.

job.py  settings, `run` and `main`
"""
