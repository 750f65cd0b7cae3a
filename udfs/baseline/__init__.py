"""The small dual encoder that stands in for CLIP: frozen towers from wheels, two trained heads.

model.py       the model: its towers and heads, saving and loading
training.py    trains the two heads on matched pairs
features.py    the frozen towers' features of images and captions, computed once and cached
model_card.py  the recipe and the report of a training, and the model card
"""
