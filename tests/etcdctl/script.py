"""Every subcommand of etcdctl, chapter by chapter, but for those that read etcd's own files.

A chapter runs commands and keeps what they say; what cannot be the same in two systems it checks by
itself.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.processes import wait_for
from tests.etcdctl.story import Story, in_order

SETTLED_SECONDS = 20.0
ROOT = "root:top"


def keys(story: Story) -> None:
    """put, get with all its flags, del."""
    for number in range(1, 6):
        story.run("put", f"k/{number}", f"value {6 - number}")
    story.run("put", "k/2", "newer")
    story.run("put", "k/1", "with the old one", "--prev-kv")
    story.run("put", "from/stdin", stdin="typed\nin two lines")
    story.run("put", "--", "dash", "-value")
    story.run("put", "k/3", "--ignore-value")
    story.run("put", "k/3", "x", "--ignore-lease")
    story.run("put", "none", "--ignore-value")
    story.run("put", "k/3", "x", "--lease=abcdef")
    story.run("put", "", "no key")
    story.run("put", "k/9")
    for options in (
        ["k/1"],
        ["k/1", "k/4"],
        ["k/", "--prefix"],
        ["k/4", "--from-key"],
        ["", "--from-key", "--limit=3"],
        ["k/", "--prefix", "--limit=2"],
        ["k/", "--prefix", "--keys-only"],
        ["k/", "--prefix", "--print-value-only"],
        ["k/2", "--rev=4"],
        ["k/2", "--consistency=s"],
        ["k/2", "--consistency=x"],
        ["k/2", "--rev=100000"],
        ["nothing"],
        ["k/1", "--prefix", "--from-key"],
        ["k/2", "--hex"],
    ):
        story.run("get", *options)
    for target in ("CREATE", "KEY", "MODIFY", "VALUE", "VERSION"):
        for order in ("ASCEND", "DESCEND"):
            story.run("get", "k/", "--prefix", f"--order={order}", f"--sort-by={target}")
    for shape in ("json", "fields"):
        story.run("get", "k/", "--prefix", "-w", shape)
        story.run("put", "shape", shape, "-w", shape)
    story.run("get", "k/1", "-w", "table")
    assert story.tool.ask("get", "k/1", "-w", "protobuf")
    for options in (
        ["k/1"],
        ["k/2", "k/4", "--prev-kv"],
        ["k/", "--prefix", "--prev-kv"],
        ["nothing"],
        ["shape", "--from-key", "-w", "json"],
    ):
        story.run("del", *options)


def transactions(story: Story) -> None:
    """txn, from a file and interactively."""
    story.run("put", "t/1", "one")
    story.run("put", "t/2", "two")
    for text in (
        'value("t/1") = "one"\n\nput t/1 uno\nget t/ --prefix\n\nput t/1 never\n\n',
        'mod("t/1") > "100000"\n\nput t/1 never\n\nput t/3 three\nget t/3\n\n',
        'create("t/4") = "0"\nversion("t/2") < "5"\n\nput t/4 four\ndel t/2 --prev-kv\n\n\n',
        'create("t/5") = "0"\n\nput t/5 "a \\"quoted\\" value"\n\n\n',
        "\n\n\n",
        "\nput same 1\nput same 2\n\n\n",
    ):
        story.run("txn", stdin=text)
        story.run("txn", "-i", stdin=text)
    story.run("txn", "-w", "json", stdin="\n\nget t/ --prefix --keys-only\n\n\n")


def watches(story: Story) -> None:
    """watch: a key, a range, a prefix, history, old values, a command, interactively."""
    ask = story.tool.ask
    begin = int(json.loads(ask("get", "w", "-w", "json"))["header"]["revision"]) + 1
    for number in range(3):
        story.run("put", f"w/{number}", f"history {number}")
    story.run("put", "w/1", "changed")
    story.run("del", "w/0")
    for options, count in (
        (["w/1", f"--rev={begin}"], 6),
        (["w/", "--prefix", f"--rev={begin}"], 15),
        (["w/1", "w/3", f"--rev={begin}"], 9),
        (["w/", "--prefix", "--prev-kv", f"--rev={begin + 3}"], 10),
        (["w/", "--prefix", f"--rev={begin + 4}", "-w", "json"], 1),
    ):
        story.follow("watch", *options, count=count, change=lambda: None)
    words = [f"--rev={begin + 3}", "w/1", "--", "sh", "-c"]
    script = 'echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"'
    story.follow("watch", *words, script, count=4, change=lambda: None)
    typed = f"watch w/2 --rev={begin}\nwatch w/1 --rev={begin + 3}\n"
    running = story.tool.begin("watch", "-i")
    running.say(typed)
    lines = running.lines(6)
    story.keep(("watch", "-i"), "\n".join(sorted([*lines, *running.interrupt()])))


def leases(story: Story) -> None:
    """lease grant, list, timetolive, keep-alive, revoke."""
    granted = story.tool.ask("lease", "grant", "100")
    lease = story.name_lease(granted)
    story.keep(("lease", "grant", "100"), granted)
    story.run("put", "l/1", "leased", f"--lease={lease}")
    story.run("put", "l/2", "leased", f"--lease={lease}")
    story.run("put", "l/1", "again", "--ignore-lease")
    listed = story.tool.ask("lease", "list")
    assert lease in listed.split(), listed
    story.keep(("lease", "list"), listed)
    for options in ([], ["--keys"], ["-w", "json", "--keys"], ["-w", "fields"]):
        said = story.tool.ask("lease", "timetolive", lease, *options)
        said = re.sub(r'(remaining\(|"ttl":|"TTL" : )(\d+)', r"\1some", said)
        # Keys come in any order.
        story.keep(("lease", "timetolive", *options), in_order(story.comparable(said)))
    story.run("lease", "keep-alive", "--once", lease)
    story.follow("lease", "keep-alive", lease, count=1, change=lambda: None)
    story.run("lease", "revoke", lease)
    story.run("lease", "revoke", lease)
    story.run("lease", "timetolive", lease)
    story.run("lease", "keep-alive", "--once", lease)
    story.run("get", "l/", "--prefix")
    story.run("lease", "grant", "no number")
    story.run("lease", "grant", "9000000001")


def locks(story: Story) -> None:
    """lock, elect."""
    story.run("lock", "one", "echo", "held")
    story.run("lock", "one", "--", "sh", "-c", "exit 3")
    holder = story.tool.begin("lock", "many", "--ttl=20")
    first = holder.lines(1)
    second = story.tool.begin("lock", "many")
    try:
        assert re.fullmatch(r"many/[0-9a-f]+", first[0]), first
        waiting = json.loads(story.tool.ask("get", "many/", "--prefix", "-w", "json"))
        wait_for(
            "the second one waits",
            lambda: (
                json.loads(story.tool.ask("get", "many/", "--prefix", "-w", "json"))["count"] == 2
            ),
            SETTLED_SECONDS,
        )
        assert waiting["count"] in (1, 2)
        holder.interrupt()
        assert re.fullmatch(r"many/[0-9a-f]+", second.lines(1)[0])
    finally:
        second.interrupt()
    leader = story.tool.begin("elect", "boss", "first")
    try:
        key, value = leader.lines(2)
        assert key.startswith("boss/")
        assert value == "first"
        observer = story.tool.begin("elect", "boss", "-l")
        try:
            assert observer.lines(2) == [key, value]
        finally:
            observer.interrupt()
    finally:
        leader.interrupt()
    story.keep(("lock", "elect"), "held, handed over, elected, observed")


def cluster(story: Story) -> None:
    """member, endpoint, alarm, move-leader, defrag, version."""
    story.learn_members()
    story.run("member", "list", unordered=True)
    story.run("member", "list", "-w", "table", unordered=True)
    story.run("member", "list", "-w", "json", unordered=True)
    story.run("endpoint", "health", unordered=True)
    for shape in ("simple", "json", "fields", "table"):
        _statuses(story, "status", shape)
        _statuses(story, "hashkv", shape)
    if not story.tool.user:
        # With --cluster etcdctl 3.4 asks for the members as nobody, which is refused since 3.5.
        story.run("endpoint", "health", "--cluster", unordered=True)
        story.run("defrag", "--cluster", unordered=True)
    story.run("alarm", "list")
    story.run("alarm", "disarm")
    story.run("defrag", unordered=True)
    story.run("version")
    story.run("completion", "bash")
    _members(story)
    if len(story.tool.endpoints) > 1:
        _leadership(story)


def _statuses(story: Story, command: str, shape: str) -> None:
    """What each endpoint says of itself: as many as there are, each in its shape."""
    said = story.tool.ask("endpoint", command, "-w", shape)
    if shape == "json":
        rows = json.loads(said)
        assert len(rows) == len(story.tool.endpoints)
        story.keep(("endpoint", command), str([sorted(row) for row in rows]))
    elif shape == "simple":
        assert len(said.splitlines()) == len(story.tool.endpoints), said
        story.keep(("endpoint", command), str({line.count(",") for line in said.splitlines()}))
    else:
        story.keep(("endpoint", command, shape), str(len(said.splitlines())))


def _members(story: Story) -> None:
    """A learner that never starts: added, seen, moved, not promoted, removed."""
    url, moved = "http://127.0.0.1:1", "http://127.0.0.1:2"
    command = ("member", "add", "newcomer", f"--peer-urls={url}", "--learner")
    said = _when_healthy(story, *command)
    members = json.loads(story.tool.ask("member", "list", "-w", "json"))["members"]
    added = next(member["ID"] for member in members if member["peerURLs"] == [url])
    story.name(added, "<newcomer>")
    story.keep(command, in_order(story.comparable(said)))
    # A follower of 3.4 that passes it on hears nothing for long.
    promote = ("member", "promote", f"{added:x}")
    leader, by_id = _leader_and_endpoints(story)
    story.keep(promote, story.shown(story.tool.at(by_id[leader]).run(*promote)))
    story.run("member", "update", f"{added:x}", f"--peer-urls={moved}")
    story.run("member", "remove", f"{added:x}")
    story.run("member", "remove", f"{added:x}")
    story.run("member", "remove", "not hexadecimal")
    story.run("member", "add", "newcomer")
    taken = story.tool.system.peer_urls[0]
    story.run("member", "add", "newcomer", f"--peer-urls={taken}")


def _when_healthy(story: Story, *command: str) -> str:
    """etcd takes a member in only once its members have seen each other for five seconds."""
    answers = []

    def look() -> bool:
        answers.append(story.tool.run(*command))
        return "etcdserver: unhealthy cluster" not in answers[-1].err

    wait_for("a healthy cluster", look, SETTLED_SECONDS)
    assert answers[-1].code == 0, f"{story.tool.system.name}: {answers[-1]}"
    return answers[-1].out


def _leader_and_endpoints(story: Story) -> tuple[int, dict[int, str]]:
    """Who leads, and where each member is asked."""
    rows = json.loads(story.tool.ask("endpoint", "status", "-w", "json"))
    by_id = {row["Status"]["header"]["member_id"]: row["Endpoint"] for row in rows}
    return rows[0]["Status"]["leader"], by_id


def _leadership(story: Story) -> None:
    """move-leader: refused by a follower, done by the leader."""
    leader, by_id = _leader_and_endpoints(story)
    follower = next(member for member in by_id if member != leader)
    said = story.tool.at(by_id[follower]).run("move-leader", f"{follower:x}")
    assert said.code != 0
    story.keep(("move-leader", "at a follower"), said.err.splitlines()[-1].partition(" at ")[0])
    said = story.tool.at(by_id[leader]).run("move-leader", f"{follower:x}")
    assert said.code == 0, said
    now = json.loads(story.tool.ask("endpoint", "status", "-w", "json"))
    assert {row["Status"]["leader"] for row in now} == {follower}


def compactions(story: Story) -> None:
    """compaction, and what is gone then."""
    for number in range(5):
        story.run("put", "c/1", str(number))
    revision = int(json.loads(story.tool.ask("get", "c/1", "-w", "json"))["header"]["revision"])
    story.run("compaction", str(revision - 2))
    story.run("compaction", str(revision - 2))
    story.run("compaction", str(revision + 100))
    story.run("compaction", "--physical", str(revision - 1))
    story.run("get", "c/1", f"--rev={revision - 4}")
    story.run("get", "c/1", f"--rev={revision - 1}")
    running = story.tool.begin("watch", "c/1", f"--rev={revision - 4}")
    story.keep(("watch", "from what is gone"), "\n".join(running.rest()))


def snapshots(story: Story, directory: Path) -> Path:
    """snapshot save: from one endpoint, into a file that is there whole."""
    path = directory / f"{story.tool.system.name}.snapshot"
    said = story.tool.at(story.tool.endpoints[0]).run("snapshot", "save", str(path))
    assert said.code == 0, said
    assert path.stat().st_size > 1000
    story.keep(("snapshot", "save"), said.out.replace(str(path), "<path>"))
    return path


def mirrors(story: Story) -> None:
    """make-mirror: what is there, and what comes, under another prefix."""
    if story.tool.user:
        # The destination is asked as nobody: etcdctl 3.4 has no option for it.
        return
    destination = story.tool.endpoints[0].partition("//")[2]
    files = story.tool.system.certificates
    options = (
        []
        if files is None
        else [
            "--dest-insecure-transport=false",
            f"--dest-cacert={files.authority}",
            f"--dest-cert={files.client}",
            f"--dest-key={files.client_key}",
        ]
    )
    for number in range(3):
        story.run("put", f"m/{number}", f"mirrored {number}")
    mirror = story.tool.begin(
        "make-mirror", "--prefix=m/", "--dest-prefix=copy/", *options, destination
    )
    try:
        _wait_for_copies(story, 3)
        story.run("put", "m/later", "mirrored later")
        _wait_for_copies(story, 4)
        story.run("del", "m/1")
        _wait_for_copies(story, 3)
    finally:
        mirror.interrupt()
    story.keep(("make-mirror",), story.tool.ask("get", "copy/", "--prefix"))


def _wait_for_copies(story: Story, count: int) -> None:
    def look() -> bool:
        answer = json.loads(story.tool.ask("get", "copy/", "--prefix", "-w", "json"))
        return bool(answer.get("count", 0) == count)

    wait_for(f"{count} keys are mirrored", look, SETTLED_SECONDS)


def enable_auth(story: Story) -> None:
    """Let everything from here on be asked as root."""
    for arguments in (
        ("user", "add", ROOT),
        ("role", "add", "root"),
        ("user", "grant-role", "root", "root"),
        ("auth", "enable"),
    ):
        story.run(*arguments)
    story.tool = story.tool.as_user(ROOT)


def users(story: Story) -> None:
    """auth, user, role: from nobody to everybody in their place, and back."""
    story.run("user", "add", ROOT)
    story.run("role", "add", "root")
    story.run("user", "grant-role", "root", "root")
    story.run("user", "add", "ann", "--new-user-password=a1")
    story.run("user", "add", "bob", "--interactive=false", stdin="b1\n")
    story.run("user", "add", "cert", "--no-password")
    story.run("user", "add", "ann:again")
    story.run("role", "add", "reader")
    story.run("role", "add", "writer")
    story.run("role", "grant-permission", "reader", "read", "u/", "--prefix")
    story.run("role", "grant-permission", "writer", "readwrite", "u/a", "u/m")
    story.run("role", "grant-permission", "writer", "write", "u/x", "--from-key")
    story.run("role", "grant-permission", "writer", "dance", "u/x")
    story.run("role", "get", "reader")
    story.run("role", "get", "writer")
    story.run("role", "list")
    story.run("user", "grant-role", "ann", "reader")
    story.run("user", "grant-role", "bob", "writer")
    story.run("user", "grant-role", "bob", "nobody")
    story.run("user", "get", "ann")
    story.run("user", "get", "bob", "--detail")
    story.run("user", "list")
    story.run("user", "list", "-w", "json")
    story.run("auth", "enable")
    try:
        _under_rules(story)
    finally:
        story.run("auth", "disable", user=ROOT)
    for name in ("ann", "bob", "cert", "root"):
        story.run("user", "delete", name)
    for name in ("reader", "writer", "root"):
        story.run("role", "delete", name)
    story.run("user", "get", "ann")
    story.run("auth", "disable")


def _under_rules(story: Story) -> None:
    root, ann, bob = ROOT, "ann:a1", "bob:b1"
    story.run("put", "u/b", "by nobody")
    story.run("put", "u/b", "by bob", user=bob)
    story.run("get", "u/b", user=ann)
    story.run("put", "u/b", "by ann", user=ann)
    story.run("get", "other", user=ann)
    story.run("get", "u/", "--prefix", user=bob)
    story.run("get", "u/b", user="ann:wrong")
    story.run("user", "list", user=ann)
    story.run("user", "passwd", "ann", "--interactive=false", stdin="a2\n", user=root)
    story.run("get", "u/b", user="ann:a2")
    story.run("get", "u/b", user=ann)
    story.run("role", "revoke-permission", "reader", "u/", "--prefix", user=root)
    story.run("get", "u/b", user="ann:a2")
    story.run("user", "revoke-role", "bob", "writer", user=root)
    story.run("put", "u/b", "no more", user=bob)
    story.run("user", "revoke-role", "bob", "writer", user=root)
    story.run("role", "delete", "root", user=root)
    story.run("user", "delete", "root", user=root)
    story.run("compaction", "3", user=ann)
    story.run("member", "list", user=ann)
