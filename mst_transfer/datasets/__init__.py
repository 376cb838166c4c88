"""Data sets of users, readers of their label formats, and the sample world (``sample``)."""
