"""Attention over paged keys and values as Triton kernels. Importing a module here imports triton."""
