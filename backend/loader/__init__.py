"""Reading a model from disk: its configuration and its weights.

Import the modules themselves: ``model_config`` needs no torch, ``weights`` does.
"""
