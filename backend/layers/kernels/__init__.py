"""What layers do between matrix products, as Triton kernels. Importing a module here imports triton."""
