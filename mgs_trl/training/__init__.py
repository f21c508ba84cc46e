"""Parts of `MGSTrainer`: which rows go through the model when, advantages, metrics."""
