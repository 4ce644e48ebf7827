"""Runs the model: tensors of a step, forward, sampling."""
