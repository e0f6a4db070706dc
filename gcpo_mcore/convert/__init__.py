"""Checkpoint <-> Hugging Face folder, without ever holding the model."""
