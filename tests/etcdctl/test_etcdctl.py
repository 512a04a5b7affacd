"""Debian's etcdctl, as it comes, does with us what it does with etcd.

Two settings here; ``make etcdctl`` goes through all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.etcdctl.comparison import Setting, compare
from tests.etcdctl.tool import ETCDCTL

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(ETCDCTL is None, reason="etcdctl is not installed"),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("setting", [Setting(1), Setting(3, auth=True, tls=True)], ids=str)
def test_every_subcommand_says_what_it_says_of_etcd(setting: Setting, tmp_path: Path) -> None:
    assert not compare(setting, tmp_path)
