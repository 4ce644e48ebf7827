"""The example configuration is one that the server takes."""

from pathlib import Path

from backend.config import ServerArgs
from backend.flags.server import parse_server_args

EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "server.yaml"


def test_the_example_loads() -> None:
    command = parse_server_args(["--config", str(EXAMPLE)])
    assert command.accepted == []
    assert command.args == ServerArgs()


def test_what_is_commented_out_would_load_too(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ") if ": " in line and not line.startswith(("# Settings", "# Every", "# ---")) else line
        for line in EXAMPLE.read_text().splitlines()
    ]
    full = tmp_path / "server.yaml"
    full.write_text("\n".join(lines))
    args = parse_server_args(["--config", str(full), "--port", "31000"]).args
    assert (args.model_path, args.api_key, args.max_queued_requests) == ("Qwen/Qwen3-0.6B", "change-me", 1000)
    assert args.port == 31000
