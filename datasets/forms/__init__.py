"""What annotation tools write: a reader per form, and the one place that tells the form."""
