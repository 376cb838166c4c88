"""What frozen features are worth: k-NN and linear protocols of DINO, and monitors that need no labels."""
