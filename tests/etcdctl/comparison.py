"""Runs the whole script against one system or two, in each of the ways a cluster can be set up."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trustme

from tests.etcdctl import script
from tests.etcdctl.story import Story, differences
from tests.etcdctl.systems import ETCD, Certificates, System
from tests.etcdctl.tool import Tool

CHAPTERS = (
    script.keys,
    script.transactions,
    script.watches,
    script.leases,
    script.locks,
    script.compactions,
    script.mirrors,
)


class Setting(msgspec.Struct, frozen=True):
    """How many nodes, and whether users and encryption are on."""

    size: int
    auth: bool = False
    tls: bool = False

    def __str__(self) -> str:
        words = [f"{self.size} node{'s' if self.size > 1 else ''}"]
        return ", ".join(words + ["auth"] * self.auth + ["TLS"] * self.tls)


SETTINGS = tuple(
    Setting(size, auth, tls) for size in (1, 3) for auth in (False, True) for tls in (False, True)
)


def compare(setting: Setting, directory: Path) -> list[str]:
    """Let both systems go through the script; without etcd installed, only ours.

    Returns:
        What differs, in words.

    Raises:
        AssertionError: A command that must succeed failed.
    """
    certificates = make_certificates(directory) if setting.tls else None
    stories = []
    for name in ("kvstore", "etcd") if ETCD else ("kvstore",):
        system = System(name, directory / name, setting.size, certificates)
        try:
            system.start()
            stories.append(tell(system, setting, directory))
        finally:
            system.close()
    return differences(*stories) if len(stories) == 2 else []


def tell(system: System, setting: Setting, directory: Path) -> Story:
    """All chapters, of one system."""
    story = Story(Tool(system))
    story.wait_ready()
    script.users(story)
    if setting.auth:
        script.enable_auth(story)
    for chapter in CHAPTERS:
        chapter(story)
    script.snapshots(story, directory)
    # Last, as the leadership moves: whoever keeps leases then gives them more time.
    script.cluster(story)
    return story


def make_certificates(directory: Path) -> Certificates:
    """An authority, and what it signed."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    # Of a user whom the script makes, and who may do nothing: whoever brings no token is that one.
    client = authority.issue_cert("client.test", common_name="cert")
    files = Certificates(
        authority=directory / "ca.pem",
        server=directory / "server.pem",
        server_key=directory / "server.key",
        client=directory / "client.pem",
        client_key=directory / "client.key",
    )
    authority.cert_pem.write_to_path(files.authority)
    server.private_key_pem.write_to_path(files.server_key)
    client.private_key_pem.write_to_path(files.client_key)
    for signed, path in ((server, files.server), (client, files.client)):
        for part in signed.cert_chain_pems:
            part.write_to_path(path, append=True)
    return files
