"""Fine-tuning, executor side: plain torch over a folder of examples; knows no Spark.

recipe.py     what is trained how: stages, losses and their weights
examples.py   the folder of examples that `mlm-filter finetune` writes and training reads
balance.py    which scored pairs an epoch sees: flat over score values
alter.py      captions with one detail changed, for ranking without a teacher
sampling.py   what each step sees, a pure function of seed and step
tree.py       one sequence for an image and many captions, as a tree of tokens
numbers.py    the read-out of scores, differentiable
losses.py     the five losses
features.py   what the projector reads, computed once where the vision tower is frozen
student.py    the model that learns: base, adapter, projector, forward pass
train.py      the loop: stages, checkpoints, resume
report.py     model card and curves
"""
