"""What a run leaves in its directory: metrics, conflicts, how it was started, whose a checkpoint is."""
