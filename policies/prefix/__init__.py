"""Who holds which prefix: the text tree, and the slow reference that its tests compare it with."""

from policies.prefix.text_tree import TextTree

__all__ = ["TextTree"]
