"""Keeps a scores table in shape: columns and constraints, few files in order, no unused files.

job.py            settings, `run` and `main`
table_changes.py  what a table from an earlier version lacks, and rows that no constraint allows
"""
