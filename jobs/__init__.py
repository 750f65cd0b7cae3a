"""The jobs of `mlm-filter`, one folder per job. They run on the Spark driver, without torch.

cli.py                 the command `mlm-filter`: finds a job by its name
__main__.py            `python -m jobs`: the same command
wheel_entry_points.py  one command per job (`mlm-filter-score` ...), for schedulers

quickstart/  sample pairs -> scores -> filtered -> a report; runs other jobs
ingest/      images and captions from files or tables -> a pairs table
finetune/    a teacher's scores -> a model that scores
score/       pairs -> scores
signals/     pairs -> cheap signals: size, language, duplicates, text in the image
filter/      scores and signals -> a selection, by rules
export/      a selection -> files that training code reads
report/      a selection -> one HTML page
evaluate/    scores and ratings -> how well they agree
query/       SQL over the tables
maintain/    a scores table kept in shape: columns, constraints, files
views/       the tables as views in a catalog
baseline/    pairs -> a small dual encoder, to compare with
starter/     the starter model as a Hugging Face folder

rules/       the rule language, from text to Spark columns
tables/      the project's tables, one file per table
core/        settings, session, errors, progress, running a job

In each job's folder, `job.py` holds its settings, `run` and `main`. A folder imports only from
folders below it in this list, and only the quickstart imports other jobs.
"""

__version__ = "0.1.0"

# Job -> what it does, in one line. A job has the name of its folder and is imported on demand.
JOBS = {
    "ingest": "images and captions from a folder, Parquet, Delta or WebDataset -> a pairs table",
    "finetune": "a teacher's scores (and matching captions) -> a model that scores, with its card",
    "score": "score the pairs that have no scores yet with a multimodal model -> a scores table",
    "filter": "keep the best pairs by thresholds or fractions -> a selection and a pairs table",
    "signals": "size, language, length, duplicates, text in the image -> a signals table",
    "export": "the kept pairs -> DataComp uids, WebDataset shards, Parquet for datasets, Delta",
    "report": "scores and a selection -> one HTML page",
    "maintain": "bring a scores table up to date, compact its files, delete unused ones",
    "views": "scores joined with pairs, selections, signals -> views in the catalog",
    "query": "query the tables in SQL: a ready-made query by name, or your own",
    "evaluate": "compare scores with ratings -> correlations, calibration, a picture",
    "baseline": "train a small dual encoder, a baseline in place of CLIP",
    "starter": "save the small starter model as a Hugging Face folder",
    "quickstart": "sample pairs -> scores -> filtered pairs in one go, with a readable summary",
}

OLD_NAMES = {"standin": "baseline"}
"""Former name of a job -> its name now, so that old command lines and settings keep working."""
