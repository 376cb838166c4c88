"""Data of the transfer side: the sample scenes, and checks of data before a run."""
