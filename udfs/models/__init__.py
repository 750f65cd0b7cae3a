"""Loading a model by its kind, once a process, and naming what it is.

model_config.py  the settings of a model that decide a score
loaded_model.py  this process's model, loaded at the first call
torch_setup.py   device, number type, and errors that name the model
mlm.py           loads a multimodal language model, with an adapter merged in
dual_encoder.py  loads a dual encoder
model_files.py   where a model's files are: a folder, the hub, an adapter and its base
identity.py      the hashes that name a model and a scorer
"""
