"""From image-level tags to a checkpoint."""
