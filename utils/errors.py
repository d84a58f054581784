"""The one exception that stands for a user's mistake. A leaf: any package may import it."""


class UserError(Exception):
    """Bad input: one sentence naming the file or flag, the value and the fix. Entry points print it and exit with 2."""
