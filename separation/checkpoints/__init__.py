"""Checkpoints of released systems: read safely, recognised by their tensors, fetched from their public homes."""
