"""Shows what several checkpoints are worth side by side: outcomes, statistics."""
