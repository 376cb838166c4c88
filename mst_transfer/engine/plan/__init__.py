"""Says what a run would do before it does it: batches, steps, memory, parameters."""
