"""Pictures, masks and tags, however they are handed in."""

from utils.common.startup import answer_for_commands

answer_for_commands()
