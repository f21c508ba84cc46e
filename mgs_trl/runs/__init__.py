"""A run from a recipe to a saved policy: stages, resumption, interruption, what is printed."""
