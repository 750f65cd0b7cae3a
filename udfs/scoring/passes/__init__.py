"""Ways to run a model over packed pairs, and which of them a model takes.

forward_passes.py    four ways to run a model, with the same results
attention_masks.py   a packed sequence's masks, from the model's own
pass_selection.py    the fastest way that gives a model's plain answers, and why no faster one does
chain_of_thought.py  the model writes a reason first, then gives the number
"""
