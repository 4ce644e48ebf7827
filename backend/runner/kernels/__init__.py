"""Sampling as Triton kernels. Importing a module here imports triton."""
