"""What every job needs: settings, errors, a Spark session, progress.

settings.py        a frozen pydantic model gives a job its options, YAML keys and defaults
image_path_settings.py  the settings of jobs that can read images by paths in a table
job_runner.py      runs a job as a program: errors, exit codes, the line of JSON at the end
errors.py          the error for bad usage or bad input
map_in_arrow.py    functions over Arrow batches, for tables with any names of columns
session.py         the active Spark session, or a new local one
scratch_folder.py  a folder for the temporary files of one process
java.py            finds a Java that Spark can run on
progress.py        rows done, rows per second, time left
spark_progress.py  progress of one long Spark action, by its tasks
"""
