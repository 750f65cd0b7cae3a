"""What every job needs.

settings.py        a frozen model is a job's command line, its YAML keys and its defaults
job_runner.py      runs a job as a program: errors, exit codes, the line of JSON
errors.py          what a job raises on purpose
session.py         the Spark session that is there, or a local one
java.py            finds a Java that Spark runs on
progress.py        rows done, rows a second, time left
spark_progress.py  progress of one long Spark action
"""
