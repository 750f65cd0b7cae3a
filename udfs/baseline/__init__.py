"""The small dual encoder that stands in for CLIP: frozen towers from wheels, two trained heads.

model.py       the model: saving and loading, embeddings
training.py    trains the two heads on matched pairs
features.py    what the frozen towers say of images and captions, computed once
model_card.py  what a training was asked to do and what it did, as a model card
"""
