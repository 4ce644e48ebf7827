"""Exit status 0 when this Python has a torch that Warmlane can use; with --shared, one that environments can share."""

import importlib.metadata
import sys

OLDEST = (2, 11)


def has_torch() -> bool:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in version.split(".")[:2]) >= OLDEST


def shareable() -> bool:
    """An environment made inside another one would see the packages below that, not its own."""
    return sys.prefix == sys.base_prefix


if __name__ == "__main__":
    sys.exit(not (has_torch() and (shareable() or "--shared" not in sys.argv)))
