"""Pictures of a pre-training: attention, masks, restoration."""
