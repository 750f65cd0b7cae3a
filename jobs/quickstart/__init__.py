"""The quickstart: sample pairs -> scores -> filtered, and a report, in one go.

job.py  settings, `run` and `main`
"""
