"""Detection models: what they are called, which file answers, engines made of them."""
