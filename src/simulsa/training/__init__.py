"""Supervised fine-tuning of a LoRA adapter on a mix of offline and simultaneous rows."""
