"""Fine-tuning: `transformers.Trainer` and peft, with this project's data, loss and evaluation.

settings.py              what is trained, and how the objectives are weighed
examples.py              the folder of examples: images, a teacher's answers, conversations
balanced_sampler.py      what an epoch sees: uniform over the values of the scores
collator.py              an image with its captions, questions and answers as one packed sequence
forward.py               packed or plain sequences through a model, to the logits that are read
number_cross_entropy.py  objective: cross-entropy over the number, with soft targets
expectation_error.py     objective: squared error of the expectation
reason_likelihood.py     objective: negative log-likelihood of the reason
ranknet.py               objective: RankNet for captions of one image
trainable_parts.py       language model, projector and vision tower: LoRA, full or frozen
trainer.py               the Trainer's subclass: loss and evaluation
checkpoints.py           which checkpoint a killed training goes on from
run.py                   one training, from the folder of examples to a model folder
"""
