"""What a real cluster shows over HTTP: websockets, who waits and hangs up, health, its document."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import ClusterMaker
from tests.kvstore.api.json_schema import faults

pytestmark = pytest.mark.e2e

SECONDS = 10.0


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Faces:
    """The members of a cluster, asked by JSON."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self.urls = [member.client_url for member in cluster.members]
        self.session = session

    async def ask(self, path: str, member: int = 0, **body: Any) -> Any:
        """The answer to a call that must not fail."""
        async with self.session.post(self.urls[member] + path, json=body) as response:
            text = await response.text()
            assert response.status == 200, f"{path}: {text}"
            return json.loads(text)

    async def read(self, path: str, member: int = 0) -> tuple[int, str]:
        async with self.session.get(self.urls[member] + path) as response:
            return response.status, await response.text()

    def socket(self, path: str, member: int = 0) -> Any:
        return self.session.ws_connect(self.urls[member] + path)


async def said(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return json.loads(await socket.receive_str(timeout=SECONDS))["result"]


async def test_a_watch_over_a_websocket_sees_what_other_members_take(calm_cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        faces = Faces(calm_cluster, session)
        async with faces.socket("/v3/watch") as socket:
            for number in (1, 2):
                key = b64(f"socket/{number}")
                await socket.send_json({"create_request": {"key": key, "watch_id": number}})
                assert (await said(socket))["created"] is True
            for member in (1, 2):
                await faces.ask("/v3/kv/put", member, key=b64(f"socket/{member}"), value=b64("v"))
                seen = await said(socket)
                assert seen["watch_id"] == str(member)
                assert seen["events"][0]["kv"]["key"] == b64(f"socket/{member}")
            await socket.send_json({"cancel_request": {"watch_id": 1}})
            assert (await said(socket))["canceled"] is True


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_who_waits_for_a_lock_and_hangs_up_leaves_no_key(
    calm_cluster: Cluster, over: str
) -> None:
    name = b64(f"hung-up/{over}")
    async with aiohttp.ClientSession() as session:
        faces = Faces(calm_cluster, session)
        held = await faces.ask("/v3/lock/lock", name=name)

        async def keys() -> int:
            prefix = base64.b64encode(f"hung-up/{over}0".encode()).decode()
            found = await faces.ask("/v3/kv/range", key=name, range_end=prefix, count_only=True)
            return int(found.get("count", 0))

        async with aiohttp.ClientSession() as other:
            waiting = Faces(calm_cluster, other)
            if over == "http":
                task = asyncio.create_task(waiting.ask("/v3/lock/lock", 1, name=name))
                await until(keys, 2)
                task.cancel()
                await asyncio.wait([task])
            else:
                async with waiting.socket("/v3/lock/lock", 1) as socket:
                    await socket.send_json({"name": name})
                    await until(keys, 2)
        await until(keys, 1)
        await faces.ask("/v3/lock/unlock", key=held["key"])
        again = await faces.ask("/v3/lock/lock", 2, name=name)
        await faces.ask("/v3/lock/unlock", key=again["key"])


async def test_a_socket_is_whoever_its_token_says(new_cluster: ClusterMaker) -> None:
    async with aiohttp.ClientSession() as session:
        cluster = new_cluster(size=1, flags=["--bcrypt-cost=4"])
        faces = Faces(cluster, session)
        login: dict[str, Any] = {"name": "root", "password": "secret"}
        await faces.ask("/v3/auth/user/add", **login)
        await faces.ask("/v3/auth/role/add", name="root")
        await faces.ask("/v3/auth/user/grant", user="root", role="root")
        await faces.ask("/v3/auth/enable")
        token = (await faces.ask("/v3/auth/authenticate", **login))["token"]
        url = faces.urls[0]
        put = {"key": b64("a"), "value": b64("b")}

        async def answer(path: str, body: Any, **options: Any) -> Any:
            async with session.ws_connect(url + path, **options) as socket:
                await socket.send_json(body)
                return json.loads(await socket.receive_str(timeout=SECONDS))

        refused = await answer("/v3/kv/put", put)
        assert refused["message"] == "etcdserver: user name is empty"
        refused = await answer("/v3/kv/put", put, protocols=("Bearer", "nobody.1"))
        assert refused["message"] == "etcdserver: invalid auth token"
        assert "header" in await answer("/v3/kv/put", put, protocols=("Bearer", token))
        assert "header" in await answer("/v3/kv/put", put, headers={"Cookie": f"token={token}"})
        watch = {"create_request": {"key": b64("a")}}
        created = (await answer("/v3/watch", watch, protocols=("Bearer", token)))["result"]
        assert (created["created"], created.get("canceled")) == (True, None)
        assert await faces.read("/health") == (200, '{"health":"true","reason":""}')
        assert await faces.read("/readyz") == (200, "ok\n")


async def until(count: Any, wanted: int) -> None:
    async with asyncio.timeout(SECONDS):
        while await count() != wanted:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


async def test_each_member_is_well_and_says_so(calm_cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        faces = Faces(calm_cluster, session)
        for member in range(3):
            assert await faces.read("/health", member) == (200, '{"health":"true","reason":""}')
            assert await faces.read("/livez", member) == (200, "ok\n")
            assert await faces.read("/readyz?verbose", member) == (
                200,
                "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"
                "[+]non_learner ok\nok\n",
            )
            assert await faces.read("/readyz/linearizable_read", member) == (200, "ok\n")


async def test_real_answers_fit_the_document(calm_cluster: Cluster) -> None:
    calls: dict[str, dict[str, Any]] = {
        "/kv/put": {"key": b64("fits"), "value": b64("v"), "prev_kv": True},
        "/kv/range": {"key": b64("fits")},
        "/kv/txn": {"success": [{"request_range": {"key": b64("fits")}}]},
        "/kv/deleterange": {"key": b64("fits"), "prev_kv": True},
        "/lease/grant": {"TTL": 5},
        "/lease/leases": {},
        "/cluster/member/list": {},
        "/maintenance/status": {},
        "/maintenance/hashkv": {},
        "/maintenance/hash": {},
        "/maintenance/alarm": {},
        "/maintenance/defragment": {},
        "/election/campaign": {"name": b64("fits-too"), "value": b64("me")},
        "/election/leader": {"name": b64("fits-too")},
    }
    async with aiohttp.ClientSession() as session:
        faces = Faces(calm_cluster, session)
        status, text = await faces.read("/openapi.json")
        document = json.loads(text)
        assert status == 200
        for path, body in calls.items():
            operation = document["paths"]["/v3" + path]["post"]
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert faults(await faces.ask("/v3" + path, 1, **body), schema, document) == []


async def test_a_snapshot_comes_line_by_line(calm_cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        url = calm_cluster.members[0].client_url
        async with session.post(f"{url}/v3/maintenance/snapshot", data=b"{}") as response:
            lines = [json.loads(line)["result"] async for line in response.content]
        left = [int(line.get("remaining_bytes", 0)) for line in lines]
        assert left == sorted(left, reverse=True)
        assert left[-1] == 0
        assert len(base64.b64decode(lines[-1]["blob"])) == 32
