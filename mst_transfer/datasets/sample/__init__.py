"""Draws the sample world: textures from photographs, scenes of them, and their data sets on disk."""
