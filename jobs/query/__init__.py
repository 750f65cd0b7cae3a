"""SQL over the tables: a query of conf/queries.sql by its name, or one's own.

job.py            settings, `run` and `main`
named_queries.py  the queries of conf/queries.sql
"""
