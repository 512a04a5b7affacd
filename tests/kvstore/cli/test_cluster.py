"""A local cluster: its plan, what it says, and when it gives up."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstore.cli import cluster as cluster_module
from kvstore.cli import cluster_nodes, cluster_view, processes
from kvstore.cli.cluster import StopSignals
from kvstore.cli.cluster_nodes import Node, State, plan, serve_arguments
from kvstore.cli.main import main
from kvstore.config_sources import load
from kvstore.errors import ConfigError


def nodes() -> list[Node]:
    return plan(Path("data"), (2379, 22379, 32379), (2380, 22380, 32380))


def test_the_command_lines_are_configurations_that_agree():
    configs = []
    for node in nodes():
        flags = dict(
            argument.removeprefix("--").split("=", 1)
            for argument in serve_arguments(node, nodes())[4:]
        )
        configs.append(load(flags, {}, lambda path: b"").config)
    assert [config.name for config in configs] == ["node1", "node2", "node3"]
    assert [config.data_dir for config in configs] == [
        str(Path.cwd() / "data" / node.name) for node in nodes()
    ]
    assert configs[0].initial_cluster == configs[1].initial_cluster == configs[2].initial_cluster
    assert configs[1].listen_client_urls == ("http://127.0.0.1:22379",)


def test_ports_must_be_one_of_each_kind_a_node():
    with pytest.raises(ConfigError, match="one a node"):
        plan(Path(), (1, 2, 3), (4, 5))
    with pytest.raises(ConfigError, match="twice"):
        plan(Path(), (1, 2, 3), (4, 5, 3))


def test_a_port_in_use_is_named_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(cluster_nodes, "port_is_free", lambda host, port: port != 22380)
    assert main(["cluster"]) == 1
    err = capsys.readouterr().err
    assert "port 22380 on 127.0.0.1 is in use" in err
    assert "--peer-ports" in err


@pytest.mark.parametrize("text", ["x", "0,1,2", "1,,2", "70000"])
def test_ports_that_are_none_are_wrong_usage(text, capsys):
    assert main(["cluster", f"--client-ports={text}"]) == 2
    assert "ports" in capsys.readouterr().err


class FakeChild:
    def __init__(self, name, ending=None, log_path=Path("x.log")):
        self.name = name
        self.pid = 7
        self.ending = ending
        self.log_path = log_path

    def is_alive(self):
        return self.ending is None

    def ended_how(self):
        return self.ending or "is running"

    def last_words(self):
        return f"last words of {self.name}"


class FakeStop(StopSignals):
    """Lets so many rounds pass, and installs no handler."""

    def __init__(self, rounds):
        self.rounds = rounds

    def wait(self, seconds):
        self.rounds -= 1
        return self.rounds < 0


LEADER = State(member_id=1, leader_id=1, term=2)
FOLLOWER = State(member_id=2, leader_id=1, term=2)
LOST = State(member_id=2, leader_id=0, term=2)
DOWN = State(error="refused")


def watch_over(monkeypatch, children, rounds):
    """Run the loop over rounds of states, printing plainly."""
    states = [state for each in rounds for state in each]
    monkeypatch.setattr(cluster_module, "ask", lambda node: states.pop(0))
    view = cluster_view.PlainView()
    return cluster_module._watch_over(nodes(), children, view, FakeStop(len(rounds)))


def test_ready_and_each_change_of_leader_is_said_once(monkeypatch, capsys):
    children = [FakeChild(node.name) for node in nodes()]
    second = State(member_id=2, leader_id=2, term=3)
    rounds = [
        [DOWN, DOWN, DOWN],
        [LOST, LOST, DOWN],
        [LEADER, FOLLOWER, FOLLOWER],
        [LEADER, FOLLOWER, FOLLOWER],
        [State(member_id=1, leader_id=2, term=3), second, FOLLOWER],
    ]
    assert watch_over(monkeypatch, children, rounds) == ""
    out = capsys.readouterr().out
    assert out.count("ready; try:") == 1
    assert out.count("node1 http://127.0.0.1:2379 pid 7: leader, term 2") == 1
    assert out.count("node2 http://127.0.0.1:22379 pid 7: leader, term 3") == 1
    assert out.index("node1") < out.index("ready") < out.index("leader, term 3")
    for line in cluster_view.examples(nodes()):
        assert line in out


def test_a_node_that_never_comes_up_ends_the_start_with_its_log(monkeypatch):
    children = [
        FakeChild("node1"),
        FakeChild("node2", "ended with exit code 1"),
        FakeChild("node3"),
    ]
    failure = watch_over(monkeypatch, children, [[LOST, DOWN, LOST]])
    assert failure.startswith("node2 ended with exit code 1")
    assert "last words of node2" in failure


def test_one_that_dies_later_is_told_and_the_others_go_on(monkeypatch, capsys):
    children: Any = [FakeChild(node.name) for node in nodes()]
    fine = [LEADER, FOLLOWER, FOLLOWER]
    one_down = [DOWN, LEADER, FOLLOWER]

    def ask_and_kill(node):
        state = states.pop(0)
        if len(states) == 6:
            children[0].ending = "was ended by SIGKILL"
        if len(states) == 0:
            children[1].ending = "was ended by SIGKILL"
        return state

    states = [*fine, *fine, *one_down, DOWN, DOWN, FOLLOWER]
    monkeypatch.setattr(cluster_module, "ask", ask_and_kill)
    view = cluster_view.PlainView()
    failure = cluster_module._watch_over(
        nodes(), children, view, FakeStop(10), ["--log-level=debug"]
    )
    assert failure.startswith("node2 was ended by SIGKILL")
    out = capsys.readouterr().out
    assert out.count("node1 was ended by SIGKILL; the others go on") == 1
    again = out.split("To bring it back: ")[1].splitlines()[0]
    # Whoever follows it may stand in another directory, and have no environment activated.
    python = shlex.join([sys.executable])
    assert again.startswith(f"{python} -m kvstore.cli serve --name=node1 ")
    assert f"--data-dir={Path.cwd() / 'data' / 'node1'}" in shlex.split(again)
    assert again.endswith(" --log-level=debug")


def test_one_that_was_brought_back_by_hand_counts_as_there(monkeypatch):
    children = [FakeChild("node1", "x"), FakeChild("node2", "x"), FakeChild("node3")]
    rounds = [[LEADER, FOLLOWER, FOLLOWER]] * 3
    assert watch_over(monkeypatch, children, rounds) == ""


def test_no_leader_in_time_is_an_error_that_names_the_logs(monkeypatch):
    now = iter(range(0, 1000, 40))
    monkeypatch.setattr("kvstore.cli.cluster.time.monotonic", lambda: float(next(now)))
    children = [FakeChild(node.name) for node in nodes()]
    failure = watch_over(monkeypatch, children, [[LOST] * 3] * 5)
    assert "no leader after 60 s" in failure
    assert "data/node1.log" in failure


def test_the_table_shows_every_node():
    view = cluster_view.LiveView()
    children: Any = [FakeChild(node.name) for node in nodes()]
    table = view._table(nodes(), children, [LEADER, FOLLOWER, DOWN])
    assert table.row_count == 3
    roles = list(next(column for column in table.columns if column.header == "role").cells)
    assert roles == ["leader", "follower", "down"]


def test_a_signal_ends_the_wait_and_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
        assert stop.wait(60)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_that_is_taken_is_not_free():
    with socket.socket() as listener:
        # Port 0 lets the system choose: nobody else's is touched.
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not processes.port_is_free("127.0.0.1", listener.getsockname()[1])


def test_children_are_stopped_by_their_id_and_tell_how_they_ended(tmp_path):
    sleeper = [sys.executable, "-c", "print('up', flush=True); import signal; signal.pause()"]
    child = processes.Child("a", sleeper, tmp_path / "logs" / "a.log")
    assert child.is_alive()
    assert processes.stop_all([child]) == []
    assert child.ended_how() == "was ended by SIGTERM"
    ended = processes.Child("b", [sys.executable, "-c", "raise SystemExit('gone')"], tmp_path / "b")
    ended.process.wait()
    assert ended.ended_how() == "ended with exit code 1"
    assert ended.last_words() == "gone"
    assert processes.stop_all([ended]) == []


def test_a_child_that_will_not_stop_is_killed(tmp_path):
    up = tmp_path / "up"
    os.mkfifo(up)
    script = (
        "import pathlib, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "pathlib.Path(sys.argv[1]).write_text('up'); signal.pause()"
    )
    child = processes.Child("a", [sys.executable, "-c", script, str(up)], tmp_path / "a.log")
    assert up.read_text() == "up"
    assert processes.stop_all([child], seconds=0.05) == [child]
    assert child.ended_how() == "was ended by SIGKILL"
