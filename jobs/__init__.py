"""Driver side: the jobs of `mlm-filter`, one module a job. Knows Spark and Delta, but no torch."""

__version__ = "0.1.0"

# job -> what it does in one line; the module of a job has its name. Modules are imported on demand.
JOBS = {
    "ingest": "images and captions from a folder, Parquet, Delta or WebDataset -> a pairs table",
    "finetune": "a teacher's scores (and matching captions) -> a model that scores, with its card",
    "score": "score the pairs that have no scores yet with a multimodal model -> a scores table",
    "filter": "keep the best pairs by thresholds or fractions -> a selection and a pairs table",
    "evaluate": "compare scores with ratings -> correlations, calibration, a picture",
    "standin": "train a small dual encoder, the baseline that stands in for CLIP",
    "starter": "save the small starter model as a Hugging Face folder",
    "quickstart": "sample pairs -> scores -> filtered, in one go, with a readable summary",
}
