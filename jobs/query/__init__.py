"""SQL over the tables: a ready-made query of conf/queries.sql by its name, or your own.

job.py            settings, `run` and `main`
named_queries.py  reads the queries of conf/queries.sql
"""
