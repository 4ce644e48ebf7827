"""``launch_server`` over the fake scheduler: ``python -m tests.backend.fake_server FLAGS``.

``--fake-target NAME`` as the first words chooses another target of fake_scheduler.
"""

import sys

from backend.api.serve import serve
from backend.flags.server import parse_server_args
from tests.backend import fake_scheduler

if __name__ == "__main__":
    argv = sys.argv[1:]
    target = fake_scheduler.run_fake_scheduler
    if argv[:1] == ["--fake-target"]:
        target, argv = getattr(fake_scheduler, argv[1]), argv[2:]
    sys.exit(serve(parse_server_args(argv).args, target))
