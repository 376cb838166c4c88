"""What frozen features are worth: DINO's k-NN and linear protocols, monitors without labels, attention maps."""
