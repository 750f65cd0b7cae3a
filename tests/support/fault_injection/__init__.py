"""Runs of a job that meet faults, and what becomes of their tables: for tests/faults.

fault_runs.py      runs of the score job as processes, which a test may kill
fault_points.py    the driver of such a run, which meets a fault at a given point
recovery_check.py  checks what is left, and that the same command again mends it
recovery_table.py  the table of docs/recovery.md, from what the tests found
"""
