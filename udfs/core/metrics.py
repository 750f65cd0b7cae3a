"""The paper's four quality metrics, in the order used everywhere (arXiv 2403.02677, sec. 3.1)."""

METRICS = ("itm", "odf", "ctq", "su")
ITM, ODF, CTQ, SU = range(len(METRICS))

METRIC_NAMES = {
    "itm": "image-text matching",
    "odf": "object detail fulfilment",
    "ctq": "caption text quality",
    "su": "semantic understanding",
}
