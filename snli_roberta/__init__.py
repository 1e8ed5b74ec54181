"""RoBERTa on SNLI: full fine-tuning against LoRA."""
