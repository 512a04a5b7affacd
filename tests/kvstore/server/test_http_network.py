"""Members linked over HTTP, on TCP in memory."""

import asyncio
import json
import random
from typing import Any

import pytest

from kvstore.server.network import http
from kvstore.server.network.base import Introduction, NetworkError
from kvstore.server.network.handshake import Handshake
from kvstore.server.network.http import OTHERS_TURN_SECONDS, HttpNetwork
from tests.support.http_member import CLUSTER, SILENCE_SECONDS, Member, ask, on_tcp, pair, url
from tests.support.memory_tcp import TcpLoop
from tests.support.virtual_loop import run_virtual


@on_tcp
async def test_two_members_share_one_connection_that_the_smaller_id_dialled(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    assert len(loop.connections) == 1
    assert one.links == [(2, True)]
    assert other.links == [(1, True)]
    assert one.network.is_up(2)
    for number in range(50):
        assert one.network.send(2, b"%d" % number)
    assert other.network.send(1, b"back")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"%d" % number) for number in range(50)]
    assert one.frames == [(2, b"back")]
    await one.network.stop()
    await other.network.stop()
    await asyncio.sleep(1.0)
    assert not other.network.is_up(1)
    assert all(end.is_closing() for ends in loop.connections for end in ends)


@on_tcp
async def test_peers_that_are_known_before_the_start_are_dialled_after_it(loop: TcpLoop) -> None:
    """A member that recovers a long log hears of its peers before it listens."""
    one, other = Member(loop, 1), Member(loop, 2)
    one.network.set_peers({2: (url(2),), 3: (url(3),)})
    one.network.set_peers({2: (url(2),)})
    await other.start()
    await asyncio.sleep(1.0)
    assert loop.connections == []
    await one.network.start(one)
    await asyncio.sleep(1.0)
    assert one.links == [(2, True)]
    await one.network.stop()
    await other.network.stop()


@on_tcp
async def test_a_broken_link_is_told_and_dialled_anew(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    loop.connections[0][0].abort()
    await asyncio.sleep(1.0)
    assert one.links == [(2, True), (2, False), (2, True)]
    assert other.links == [(1, True), (1, False), (1, True)]
    assert one.network.send(2, b"again")


@on_tcp
async def test_a_frame_that_means_nothing_costs_the_connection_only(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    one.network.send(2, b"nonsense")
    one.network.send(2, b"later")
    await asyncio.sleep(1.0)
    assert other.frames == []
    assert other.links == [(1, True), (1, False), (1, True)]


@on_tcp
async def test_a_link_that_fell_silent_is_dropped_and_dialled_anew(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    await asyncio.sleep(4 * SILENCE_SECONDS)
    assert len(loop.connections) == 1, "an idle link is kept alive"
    for end in loop.connections[0]:
        end.stalled = True
    await asyncio.sleep(2.5 * SILENCE_SECONDS)
    assert len(loop.connections) == 2
    assert one.links == [(2, True), (2, False), (2, True)]
    assert other.links[0] == (1, True)
    assert other.links[-2:] == [(1, False), (1, True)]


@on_tcp
async def test_a_connection_that_replaces_another_tells_that_frames_were_lost(
    loop: TcpLoop,
) -> None:
    """The dialler lost the connection and came back before the other side noticed."""
    one, other = await pair(loop)
    client, server = loop.connections[0]
    server.peer = None
    client.peer = None
    client.abort()
    await asyncio.sleep(1.0)
    assert len(loop.connections) == 2
    assert other.links == [(1, True), (1, False), (1, True)]
    assert server.is_closing()
    assert one.network.send(2, b"again")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"again")]


@on_tcp
async def test_a_connection_that_ends_right_behind_its_head_is_no_link(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    settle = Handshake._settle

    def settle_and_end(handshake: Handshake) -> None:
        settle(handshake)
        if handshake._client and len(loop.connections) == 1:
            # In the same turn, before the dialling coroutine goes on.
            handshake.transport.lose()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handshake, "_settle", settle_and_end)
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(3.0)
    assert one.links == [(2, True), (2, False), (2, True)]
    assert one.network.send(2, b"alive")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"alive")]


@on_tcp
async def test_a_member_of_another_cluster_is_refused(loop: TcpLoop) -> None:
    one, other = Member(loop, 1, cluster=0xBAD), Member(loop, 2)
    await one.start(2)
    await other.start(1)
    await asyncio.sleep(10.0)
    assert one.links == other.links == []
    refusal = one.network._complained[2]
    assert "412" in refusal
    assert "--initial-cluster-token" in refusal
    # It goes on trying, ever more slowly: the other side may be set right.
    assert 5 < len(loop.connections) < 20


@on_tcp
async def test_a_connection_to_the_wrong_member_is_refused(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    await one.network.start(one)
    one.network.set_peers({3: (url(2),)})
    await other.start(1, 3)
    await asyncio.sleep(1.0)
    assert one.links == other.links == []
    assert "this is member 2, not 3" in one.network._complained[3]


@on_tcp
async def test_a_member_that_was_removed_is_refused_and_its_link_closed(loop: TcpLoop) -> None:
    one, other = await pair(loop)
    other.removed.add(1)
    other.network.set_peers({})
    await asyncio.sleep(1.0)
    assert not other.network.is_up(1)
    assert not one.network.is_up(2)
    assert "member 1 was removed" in one.network._complained[2]
    assert set(one.told_removed_by) == {2}
    assert other.told_removed_by == []


@on_tcp
async def test_a_removed_member_whom_nobody_dials_asks_and_is_told(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    one.removed.add(2)
    await one.network.start(one)
    await other.start(1)
    await asyncio.sleep(OTHERS_TURN_SECONDS + 1.0)
    assert other.told_removed_by == [1]
    assert other.links == []


@on_tcp
async def test_a_member_is_linked_with_newcomers_of_whom_it_has_not_heard(loop: TcpLoop) -> None:
    """A log that is behind does not know who is in the cluster by now, and is to catch up."""
    one, other = Member(loop, 1), Member(loop, 2)
    await one.start()
    await other.start(1)
    await asyncio.sleep(OTHERS_TURN_SECONDS + 1.0)
    assert one.links == [(2, True)]
    one.network.send(2, b"welcome")
    await asyncio.sleep(1.0)
    assert other.frames == [(1, b"welcome")]


@on_tcp
async def test_newcomers_are_bounded(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    await one.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "NEWCOMERS_MAX", 0)
        await other.start(1)
        await asyncio.sleep(OTHERS_TURN_SECONDS + 1.0)
    assert one.links == []
    assert "too many that this member does not know" in other.network._complained[1]


@on_tcp
async def test_a_member_that_comes_with_another_log_is_refused(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    other.log_ids[1] = 0xA
    one.log_id = 0xB
    await one.start(2)
    await other.start(1)
    await asyncio.sleep(3.0)
    assert other.links == []
    assert not one.network.is_up(2)
    one.log_id = 0xA
    await asyncio.sleep(5.0)
    assert one.network.is_up(2)


@on_tcp
async def test_who_asks_to_be_replaced_is_heard_where_it_is_dialled(loop: TcpLoop) -> None:
    """Not from the one who dials: that could be anybody."""
    lost, other = Member(loop, 2), Member(loop, 1)
    lost.replace_me = True
    lost.log_id = 0xA
    lost.removed.add(1)  # It refuses everybody.
    await lost.start(1)
    await other.start()
    await asyncio.sleep(10.0)
    assert loop.connections
    assert other.told_lost == []
    other.network.set_peers({2: (url(2),)})
    await asyncio.sleep(3.0)
    assert set(other.told_lost) == {(2, Introduction(log_id=0xA, replace_me=True))}
    assert lost.told_lost == []


@on_tcp
async def test_who_has_an_empty_log_and_may_be_replaced_says_so(loop: TcpLoop) -> None:
    empty, other = Member(loop, 2), Member(loop, 1)
    empty.replace_me = empty.blank = True
    other.acquainted.add(2)
    await empty.start(1)
    await other.start(2)
    await asyncio.sleep(3.0)
    assert other.links == []
    assert set(other.told_lost) == {(2, Introduction(blank=True, replace_me=True))}


@on_tcp
async def test_a_lost_member_at_anothers_url_is_not_taken_for_that_one(loop: TcpLoop) -> None:
    lost, other = Member(loop, 2), Member(loop, 1)
    lost.replace_me = True
    lost.removed.add(1)
    await lost.start()
    await other.start()
    other.network.set_peers({3: (url(2),)})
    await asyncio.sleep(3.0)
    assert loop.connections
    assert other.told_lost == []


def test_a_dialler_that_lost_its_data_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(loop: TcpLoop) -> None:
        one, other = Member(loop, 1), Member(loop, 2)
        one.blank = True
        other.acquainted.add(1)
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(10.0)
        assert other.links == []
        assert not one.network.is_up(2)
        assert "412" in one.network._complained[2]
        assert "member 1 lost its data" in one.network._complained[2]
        assert 5 < len(loop.connections) < 20
        told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert told == ["member 1: not linked: member 1 lost its data"]
        one.blank = False
        await asyncio.sleep(3.0)
        assert other.links == [(1, True)]

    run_virtual(work, 300.0, TcpLoop)


def test_a_dialler_refuses_whom_it_dialled_if_that_one_lost_its_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(loop: TcpLoop) -> None:
        one, other = Member(loop, 1), Member(loop, 2)
        other.blank = True
        one.acquainted.add(2)
        on_link = other.on_link

        def speak_at_once(member: int, *, up: bool) -> None:
            on_link(member, up=up)
            if up:
                other.network.send(member, b"vote for me")

        other.on_link = speak_at_once  # type: ignore[method-assign]
        await one.start(2)
        await other.start(1)
        await asyncio.sleep(10.0)
        assert one.links == []
        assert one.frames == other.frames == []
        assert not one.network.is_up(2)
        # It goes on trying, ever more slowly, and leaves no connection behind.
        assert 5 < len(loop.connections) < 20
        await other.network.stop()
        await asyncio.sleep(1.0)
        assert all(end.is_closing() for ends in loop.connections for end in ends)
        told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert told == ["member 2: not linked: member 2 lost its data"]

    run_virtual(work, 300.0, TcpLoop)


@on_tcp
async def test_members_that_are_blank_and_new_to_each_other_are_linked(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    one.blank = other.blank = True
    await one.start(2)
    await other.start(1)
    await asyncio.sleep(3.0)
    assert one.links == [(2, True)]
    assert other.links == [(1, True)]


@on_tcp
async def test_a_call_without_an_answer_leaves_no_connection(loop: TcpLoop) -> None:
    accepted: list[asyncio.Protocol] = []

    def accept() -> asyncio.Protocol:
        accepted.append(asyncio.Protocol())
        return accepted[-1]

    await loop.create_server(accept, "m2", 2380)
    one = Member(loop, 1)
    await one.start(2)
    await asyncio.sleep(http.HEAD_SECONDS_MAX - 0.1)
    ((client, _),) = loop.connections
    assert not client.is_closing()
    await asyncio.sleep(0.2)
    assert client.is_closing()
    assert one.network._complained[2].endswith("no answer in time")
    # The second attempt hangs when the network stops.
    await asyncio.sleep(1.0)
    assert not loop.connections[1][0].is_closing()
    await one.network.stop()
    assert loop.connections[1][0].is_closing()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnicodeError("label empty or too long"), "no address: label empty or too long"),
        (RuntimeError("nobody thought of this"), "RuntimeError('nobody thought of this')"),
    ],
)
def test_dialling_goes_on_whatever_happens(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(loop: TcpLoop) -> None:
        async def fail(*_: object) -> None:
            raise error

        one, other = Member(loop, 1), Member(loop, 2)
        await other.start(1)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "create_connection", fail)
            await one.start(2)
            await asyncio.sleep(3.0)
            assert text in one.network._complained[2]
        await asyncio.sleep(3.0)
        assert one.links == [(2, True)]

    run_virtual(work, 300.0, TcpLoop)


@on_tcp
async def test_a_url_that_leads_nowhere_is_tried_beside_one_that_leads_on(loop: TcpLoop) -> None:
    one, other = Member(loop, 1), Member(loop, 2)
    await other.start(1)
    await one.network.start(one)
    one.network.set_peers({2: ()})
    await asyncio.sleep(1.0)
    one.network.set_peers({2: ("http://m2:99999", "http://[m2:2380", url(2))})
    await asyncio.sleep(3.0)
    assert one.links == [(2, True)]


@on_tcp
async def test_a_listen_url_that_is_none_is_told(loop: TcpLoop) -> None:
    network = HttpNetwork(CLUSTER, 1, ("http://m1:99999",), random.Random(1), SILENCE_SECONDS)
    with pytest.raises(NetworkError, match="--listen-peer-urls"):
        await network.start(Member(loop, 1))


@on_tcp
async def test_what_a_port_in_use_is_called(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    with pytest.raises(NetworkError, match=r"--listen-peer-urls.*Address already in use"):
        await Member(loop, 1).start()


# --- plain HTTP ---------------------------------------------------------------------------------


@on_tcp
async def test_the_peer_port_answers_who_and_what_it_is(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    head = b" HTTP/1.1\r\nHost: m1\r\n\r\n"
    assert (await ask(b"GET /members" + head)).endswith(b'\r\n\r\n[{"id":1}]')
    assert b"X-Etcd-Cluster-ID: c1\r\n" in await ask(b"GET /members" + head)
    assert (await ask(b"GET /version" + head)).endswith(b'{"etcdserver":"3.6.0"}')
    assert (await ask(b"GET /nothing" + head)).startswith(b"HTTP/1.1 404 ")
    assert (await ask(b"DELETE /members" + head)).startswith(b"HTTP/1.1 405 ")
    upgrade = b"GET /raft HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: "
    assert (await ask(upgrade + b"websocket\r\n\r\n")).startswith(b"HTTP/1.1 426 ")
    refused = await ask(upgrade + b"kvstore-raft/1\r\nKvstore-Cluster: not hex\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 412 ")
    assert "hexadecimal" in json.loads(refused.partition(b"\r\n\r\n")[2])["error"]


@on_tcp
async def test_a_head_that_never_ends_is_dropped_in_time(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    started = loop.now
    assert await ask(b"GET /members HTTP/1.1\r\nHost:") == b""
    assert http.HEAD_SECONDS_MAX <= loop.now - started < http.HEAD_SECONDS_MAX + 0.1


@on_tcp
async def test_too_many_connections_without_a_head_are_dropped_at_once(loop: TcpLoop) -> None:
    await Member(loop, 1).start()
    waiting = [loop.create_task(ask(b"GET")) for _ in range(http.INCOMING_MAX + 5)]
    await asyncio.sleep(1.0)
    assert sum(task.done() for task in waiting) == 5
    assert sum(server.is_closing() for _, server in loop.connections) == 5
    await asyncio.sleep(http.HEAD_SECONDS_MAX)
    assert all(task.done() for task in waiting)


@on_tcp
async def test_a_connection_with_its_head_counts_no_more_and_has_no_deadline(loop: TcpLoop) -> None:
    member = Member(loop, 1)
    await member.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "INCOMING_MAX", 1)
        hanging = loop.create_task(ask(b"GET"))
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert await ask(b"GET") == b"", "refused, and so no reason to refuse others"
        await hanging
        timers = 0
        call_later = loop.call_later

        def count(*args: Any) -> asyncio.TimerHandle:
            nonlocal timers
            handle = call_later(*args)
            if args[0] == http.HEAD_SECONDS_MAX:
                timers += 1
                heads.append(handle)
            return handle

        heads: list[asyncio.TimerHandle] = []
        patch.setattr(loop, "call_later", count)
        for _ in range(3):
            assert await ask(b"GET /version HTTP/1.1\r\nHost: m1\r\n\r\n")
        assert timers == 3
        assert all(handle.cancelled() for handle in heads)
