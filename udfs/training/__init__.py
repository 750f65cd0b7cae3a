"""Fine-tuning, executor side: plain torch over a folder of examples; knows no Spark.

recipe.py                what is trained how: stages, losses and their weights
examples.py              the folder of examples that `mlm-filter finetune` writes and training reads
score_balance.py         which scored pairs an epoch sees: flat over score values
altered_captions.py      captions with one detail changed, for ranking without a teacher
garbled_captions.py      captions with their writing spoiled, likewise
sampling.py              what each step sees, a pure function of seed and step
step_plans.py            the same, laid out for each micro-batch of a stage
step_prefetch.py         steps made ready ahead of time, in other processes
token_tree.py            one sequence for an image and many captions, as a tree of tokens
length_batches.py        sequences of like length go through the model together
image_views.py           crops of an image
features.py              what the vision tower says of images, computed once and kept
student.py               the model that learns: base, adapter, projector, forward pass
adapter.py               base model in, student out; student in, adapter or model folder out
objective.py             from a plan to its losses, which are in
  loss_inputs.py         what both of them read
  teacher_losses.py      what a teacher said: score, reason
  ranking_losses.py      captions whose order is known without one: rank
losses.py                the losses' formulas
read_positions.py        where in a forward pass numbers and reasons are read
number_probabilities.py  the read-out of scores, differentiable
checkpoints.py           saving and resuming
train.py                 the loop: stages, steps, progress
run.py                   what each process runs, from examples to a model folder
held_out.py              what the trained model makes of held-out examples
report.py                model card, figures
losses_plot.py           the curves
"""
