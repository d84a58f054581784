"""The ground that every package stands on; it imports nothing of this repository."""
