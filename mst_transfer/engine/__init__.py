"""What runs around a model: the train and test entry, layer-wise decay, the record of a run."""
