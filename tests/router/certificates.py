"""Certificates for tests, made by openssl: an authority, one for 127.0.0.1, one for a client."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def flags(self, prefix: str) -> dict[str, str]:
        """As settings of the router: ``tls`` or ``client``."""
        return {f"{prefix}_cert_path": str(self.cert), f"{prefix}_key_path": str(self.key)}


def make_authority(folder: Path, name: str = "authority") -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    _openssl("req", "-x509", *_new_key(pair), "-subj", f"/CN={name}", "-days", "2", "-out", pair.cert)
    return pair


def make_signed(folder: Path, authority: Pair, name: str) -> Pair:
    """A certificate for 127.0.0.1 and localhost, for either side."""
    pair, request, extra = Pair(folder / f"{name}.crt", folder / f"{name}.key"), folder / f"{name}.csr", folder / "ext"
    extra.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
    _openssl("req", *_new_key(pair), "-subj", f"/CN={name}", "-out", request)
    _openssl(
        "x509", "-req", "-in", request, "-CA", authority.cert, "-CAkey", authority.key, "-CAcreateserial",
        "-days", "2", "-extfile", extra, "-out", pair.cert,
    )  # fmt: skip
    return pair


def _new_key(pair: Pair) -> tuple[str | Path, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", pair.key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
