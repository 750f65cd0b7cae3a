"""Image bytes and captions in, distributions over 0..100 out.

mlm_scorer.py           a multimodal language model as a scorer: four distributions for each pair
dual_encoder_scorer.py  a dual encoder as a scorer: the cosine of its two embeddings
batching.py             what scorers share: preparing pairs, micro-batches, running out of memory
stream.py               decodes images ahead of the model
results.py              statuses, and the answer for one pair
prompts.py              the prompt around image and caption, and the four questions
chat_template.py        a model's chat template, split before and after the caption
number_tree.py          how a tokenizer spells 0..100
token_tree.py           sequences that begin alike, as one tree
packing.py              one sequence for a pair
passes/                 ways to run a model over it, and which one a model takes
readout.py              logits -> distributions -> mean, mode, entropy
"""
