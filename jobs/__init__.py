"""Driver side: the jobs of `mlm-filter`, one module a job. Knows Spark and Delta, but no torch."""

__version__ = "0.1.0"

# job -> what it does in one line; the module of a job has its name. Modules are imported on demand.
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
    "standin": "train a small dual encoder, the baseline that stands in for CLIP",
    "starter": "save the small starter model as a Hugging Face folder",
    "quickstart": "sample pairs -> scores -> filtered, in one go, with a readable summary",
}
