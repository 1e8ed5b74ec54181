"""Adversarial pairs of our own: rules that make pairs out of scenes, and what a classifier answers to them."""
