"""The card: several checkpoints side by side, with intervals."""
