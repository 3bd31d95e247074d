"""Channels of a graph: which ones stand or fall together, and their exact removal. `groups.py` says how to use it."""

from hashcompile.passes.channels.groups import Axis, ChannelGroups, Group, Keeper, find_groups
from hashcompile.passes.channels.parameters import Role
from hashcompile.passes.channels.surgery import remove

__all__ = ["Axis", "ChannelGroups", "Group", "Keeper", "Role", "find_groups", "remove"]
