"""`python -m pipelab`: plan a model's split, or generate with it, from a shell."""
