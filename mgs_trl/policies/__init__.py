"""Policies on disk, and their adapters."""
