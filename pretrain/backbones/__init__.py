"""What MST needs of ViT and Swin beyond timm: masked input and the importance of patches."""
