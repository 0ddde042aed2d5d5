"""PyTorch lives here: modules, their signatures, and sessions over them."""
