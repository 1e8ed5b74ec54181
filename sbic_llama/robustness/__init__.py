"""What moves an adapter's answers and should not: edits, injections, other groups' names; ``python -m sbic_llama.robustness``."""
