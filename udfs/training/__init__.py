"""Fine-tuning, executor side: plain torch over a folder of examples; knows no Spark.

recipe.py       what is trained how: stages, losses and their weights
examples.py     the folder of examples that `mlm-filter finetune` writes and training reads
balance.py      which scored pairs an epoch sees: flat over score values
alter.py        captions with one detail changed, for ranking without a teacher
garble.py       captions with their writing spoiled, likewise
assumed.py      scores of pairs that no teacher saw
sampling.py     what each step sees, a pure function of seed and step
plans.py        the same, laid out for each micro-batch of a stage
tree.py         one sequence for an image and many captions, as a tree of tokens
numbers.py      the read-out of scores, differentiable
losses.py       the losses
views.py        crops of an image
features.py     what frozen parts say of images and captions, computed once
looks.py        what layers of the vision tower say of whole images, for towers.py
sentences.py    what a sentence encoder says of captions, for a language model to learn from
kept.py         arrays that take long to make, kept in a file
common_space.py coordinates in which captions and images can be compared, in closed form
towers.py       coordinates likewise, by two linear towers that are trained
crowding.py     what suits everything, which says nothing of a match
cross_fitting.py a dual encoder of such towers, that judges images that it was not trained on
student.py      the model that learns: base, adapter, projector, forward pass
adapter.py      base model in, student out; student in, adapter or model folder out
objective.py    from a plan to its losses, which are in
  inputs.py     what all of them read
  aligning.py   before an image is asked about: distill, align, contrast
  comparing.py  the layer that compares caption and image
  measuring.py  the same layer, let to tell their distance as well
  imitating.py  what a dual encoder finds: imitate
  asking.py     what a teacher said: score, reason
  knowing.py    what is known without one: rank, assume
low_rank.py     what an adapter adds to a layer, read and written in closed form
uncrowding.py   what the last step leaves to be set right, in closed form
feed.py         steps made ready ahead of time
reads.py        where a forward pass is read
checkpoints.py  saving and resuming
train.py        the loop: stages, steps, progress
run.py          what each process runs, from examples to a model folder
held_out.py     what the trained model makes of held-out examples
report.py       model card, figures
losses_plot.py  the curves
"""
