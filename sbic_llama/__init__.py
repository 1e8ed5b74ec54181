"""Llama-2 with QLoRA on the Social Bias Inference Corpus: one adapter a feature."""
