"""Ours against what a user would pick instead, both in one run."""
