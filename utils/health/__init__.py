"""Whether weights, device, data and seeds are what they should be, before a run of days."""
