"""The quickstart: sample pairs -> scores -> filtered pairs and a report, in one go.

job.py  settings, `run` and `main`
"""
