"""Driver side: the jobs of `mlm-filter`, one folder a job. Knows Spark and Delta, but no torch.

cli.py                 the command `mlm-filter`: finds a job by its name
__main__.py            `python -m jobs`, the same
wheel_entry_points.py  `mlm-filter-score` and its like, for schedulers

quickstart/  sample pairs -> scores -> filtered -> a report: runs other jobs
ingest/      images and captions from anywhere -> a pairs table
finetune/    a teacher's scores -> a model that scores
score/       pairs -> scores
signals/     pairs -> cheap signals: size, language, duplicates, text in the image
filter/      scores and signals -> a selection, by rules
export/      a selection -> files that training code takes
report/      a selection -> one HTML page
evaluate/    scores and ratings -> how far they agree
query/       SQL over the tables
views/       the tables as views in a catalog
baseline/    pairs -> a small dual encoder, to compare with
starter/     the starter model as a Hugging Face folder

rules/       the rule language, from text to Spark columns
tables/      the project's tables, one file a table
core/        settings, session, errors, progress, running a job

In a job's folder `job.py` holds its settings, `run` and `main`. Imports go down this list only, and
no job imports another, but for the quickstart.
"""

__version__ = "0.1.0"

# job -> what it does in one line; the folder of a job has its name. Jobs are imported on demand.
JOBS = {
    "ingest": "images and captions from a folder, Parquet, Delta or WebDataset -> a pairs table",
    "finetune": "a teacher's scores (and matching captions) -> a model that scores, with its card",
    "score": "score the pairs that have no scores yet with a multimodal model -> a scores table",
    "filter": "keep the best pairs by thresholds or fractions -> a selection and a pairs table",
    "signals": "size, language, length, duplicates, text in the image -> a signals table",
    "export": "what is kept -> DataComp uids, WebDataset shards, Parquet for datasets, Delta",
    "report": "scores and a selection -> one HTML file to look at",
    "views": "scores joined with pairs, selections, signals -> views in the catalog",
    "query": "ask the tables: a query by its name, or SQL of your own",
    "evaluate": "compare scores with ratings -> correlations, calibration, a picture",
    "baseline": "train a small dual encoder, the baseline that stands in for CLIP",
    "starter": "save the small starter model as a Hugging Face folder",
    "quickstart": "sample pairs -> scores -> filtered, in one go, with a readable summary",
}

OLD_NAMES = {"standin": "baseline"}
"""What a job was called before -> its name: command lines and settings of then go on working."""
