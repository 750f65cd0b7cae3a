"""The tables as views in a catalog, for analysts.

job.py  settings, `run` and `main`
"""
