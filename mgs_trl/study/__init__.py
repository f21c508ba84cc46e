"""Experiments at a size that everybody can run: the miniature and what is measured on it."""
