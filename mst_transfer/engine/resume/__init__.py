"""The exact order of samples and random states, which a resumed run continues."""
