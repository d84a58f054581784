"""Where the time goes: `python -m utils.tools.benchmark`."""
