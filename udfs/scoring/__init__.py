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
packing.py              one sequence for a pair, and its block mask
forward_passes.py       three ways to run a model, with the same results
readout.py              logits -> distributions -> mean, mode, entropy
chain_of_thought.py     the model writes a reason first, then gives the number
"""
