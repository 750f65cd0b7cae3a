"""Image bytes and captions in, distributions over 0..100 out.

mlm_scorer.py           a multimodal language model as a scorer: four distributions a pair
dual_encoder_scorer.py  a dual encoder as a scorer: the cosine of its two embeddings
batching.py             what scorers share: pairs made ready, micro-batches, out of memory
stream.py               decoding ahead of the model
results.py              statuses, and the answer for one pair
prompts.py              the words around image and caption, and the four questions
chat_template.py        a model's chat template, cut at its seams
number_tree.py          how a tokenizer spells 0..100
packing.py              one sequence for a pair, and its block mask
forward_passes.py       three ways through a model to the same numbers
readout.py              logits -> distributions -> mean, mode, entropy
chain_of_thought.py     a reason first, then the number
"""
