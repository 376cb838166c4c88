"""Measures what frozen features are worth: DINO's k-NN and linear protocols, label-free monitors, attention maps."""
