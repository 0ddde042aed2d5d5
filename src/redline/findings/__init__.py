"""What may be said of a study's rows, and what follows from them."""
