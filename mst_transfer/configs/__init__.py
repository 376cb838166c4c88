"""Finds mm configs, says of which kind they are, refuses misspelt ones, checks their paths; for both packages."""
