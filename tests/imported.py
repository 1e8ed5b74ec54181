"""Imports what takes a command seconds to import; see :mod:`tests.forked`."""

from importlib import import_module

for name in (
    "common",  # first: it turns telemetry off before the Hub's client is imported
    "bitsandbytes",
    "datasets",
    "matplotlib.figure",
    "peft",
    "scipy.stats",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "transformers.models.llama.modeling_llama",
    "transformers.models.roberta.modeling_roberta",
    "trl.trainer.sft_trainer",
):
    import_module(name)
