"""The same work in PyTorch and Pyro, run in an environment of their own."""
