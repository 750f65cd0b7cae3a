"""Loads a model by its kind, once in each process, and computes its id.

model_config.py  the settings of a model: what decides a score, and batch sizes
loaded_model.py  this process's model, loaded at the first call
model_process.py scores in a child process, which may die without ending the job
torch_setup.py   device, dtype, and errors that name the model
mlm.py           loads a multimodal language model, with its adapter merged in
dual_encoder.py  loads a dual encoder
model_files.py   where a model's files are: a folder, the hub, an adapter and its base
identity.py      the hashes that identify a model and a scorer
"""
