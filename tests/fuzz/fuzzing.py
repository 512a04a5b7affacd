"""Requests made from the document, right ones and wrong ones, and the answers held against it.

Schemathesis makes requests from the schemas and judges answers to single calls; streams it does not
know, and those are judged here line by line, as is every body that is cut short or no JSON at all.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks as conformance

from kvstore.errors import Code, ErrorKind
from tests.kvstore.api.json_schema import faults

EXAMPLES_A_ROUND = 8
SHOWN_MAX = 400
ANSWER_SECONDS = 15.0
PATIENCE = {"Grpc-Timeout": "100m"}
"""What streams and calls that wait are asked with: they would not end otherwise."""

CHECKS = [
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]

# Errors that etcd gives no better code than Unknown, or whose code is a 500: known by their words.
KNOWN_500 = {
    (kind.code, kind.message) for kind in ErrorKind if kind.code in (Code.UNKNOWN, Code.DATA_LOSS)
}
# Lock and Election are clients of the other services, and lose the codes of their errors.
KNOWN_500_OF_CLIENTS = {(Code.UNKNOWN, kind.message) for kind in ErrorKind}
CLIENTS = ("/v3/lock/", "/v3/election/")


class Fuzzing:
    """One run against one node.

    Args:
        url: where it serves clients.
        number: the seed.
    """

    def __init__(self, url: str, number: int) -> None:
        load_all_checks()
        self._url = url
        self._number = number
        self._session = requests.Session()
        self._document = self._session.get(f"{url}/openapi.json", timeout=ANSWER_SECONDS).json()
        schema = schemathesis.openapi.from_dict(self._document)
        found = [result.ok() for result in schema.get_all_operations()]
        # Members come last: one that was added and never starts takes the quorum with it.
        self._operations = sorted(found, key=lambda operation: "/cluster/" in operation.path)
        self.operations = {operation.label for operation in self._operations}
        self.answered: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self.findings: dict[tuple[str, str], str] = {}
        self.asked = 0
        self.rounds = 0

    def run(self, seconds: float) -> None:
        """Ask every operation a little, again and again, until the time is up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or not self.rounds:
            self.rounds += 1
            for operation in self._operations:
                self._ask_by_schema(operation, GenerationMode.POSITIVE)
                if operation.method == "post":
                    self._ask_by_schema(operation, GenerationMode.NEGATIVE)
                    self._ask_with_rubbish(operation)
                if self.rounds > 1 and time.monotonic() > end:
                    return
            self._clear_alarms()

    def _settings(self) -> settings:
        return settings(
            max_examples=EXAMPLES_A_ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )

    def _ask_by_schema(self, operation: Any, mode: GenerationMode) -> None:
        @seed(self._number * 1_000_003 + self.rounds)
        @self._settings()
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            if self._takes_long(operation):
                case.headers.update(PATIENCE)
            try:
                response = case.call(
                    base_url=self._url, session=self._session, timeout=ANSWER_SECONDS
                )
            except requests.exceptions.InvalidHeader:
                return
            except requests.exceptions.RequestException as error:
                self._note(operation, f"no answer: {type(error).__name__}", case.as_curl_command())
                return
            self._judge(operation, case.as_curl_command(), response.status_code, response.content)
            if self._is_stream(operation):
                return
            try:
                case.validate_response(response, checks=CHECKS)
            except FailureGroup as group:
                for failure in group.exceptions:
                    self._note(operation, str(failure), case.as_curl_command())
            except Failure as failure:
                self._note(operation, str(failure), case.as_curl_command())

        ask()

    def _ask_with_rubbish(self, operation: Any) -> None:
        rng = random.Random(f"{self._number}/{self.rounds}/{operation.path}")
        right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)

        @seed(self._number * 1_000_033 + self.rounds)
        @self._settings()
        @given(st.one_of(st.binary(max_size=200), right.map(_encoded)))
        def ask(raw: bytes) -> None:
            cut = raw[: rng.randrange(len(raw) + 1)]
            shown = f"POST {operation.path} {cut!r}"
            try:
                response = self._session.post(
                    self._url + operation.path, data=cut, headers=PATIENCE, timeout=ANSWER_SECONDS
                )
            except requests.exceptions.RequestException as error:
                self._note(operation, f"no answer: {type(error).__name__}", shown)
                return
            self._judge(operation, shown, response.status_code, response.content)

        ask()

    def _judge(self, operation: Any, asked: str, status: int, body: bytes) -> None:
        """Hold an answer against the document, each line of a stream by itself."""
        self.asked += 1
        self.answered.add(operation.label)
        self.statuses[status] += 1
        item = self._document["paths"][operation.path][operation.method]
        response = item["responses"].get(str(status))
        if response is None:
            self._note(operation, f"{status} is not in the document", f"{asked}\n{body!r}")
            return
        schema = response["content"].get("application/json", {}).get("schema")
        if schema is None:
            return
        stream = self._is_stream(operation) and status == 200
        for text in body.splitlines() if stream else [body]:
            try:
                value = json.loads(text)
            except ValueError:
                self._note(operation, "not JSON", f"{asked}\n{text!r}")
                continue
            for fault in faults(value, schema, self._document):
                self._note(operation, fault, f"{asked}\n{text!r}")
            if status == 500:
                self._judge_500(operation, value, asked)

    def _judge_500(self, operation: Any, value: Any, asked: str) -> None:
        # A stream's error lies within another object.
        fields = value["error"] if isinstance(value.get("error"), dict) else value
        error = (fields.get("code"), fields.get("message"))
        known = error in KNOWN_500 or (
            operation.path.startswith(CLIENTS) and error in KNOWN_500_OF_CLIENTS
        )
        if not known:
            self._note(operation, f"500: {error}", asked)

    def _note(self, operation: Any, what: str, asked: str) -> None:
        key = (operation.label, what[:60])
        if key not in self.findings:
            self.findings[key] = f"{operation.label}: {what[:SHOWN_MAX]}\n  {asked[:SHOWN_MAX]}"

    def _is_stream(self, operation: Any) -> bool:
        shape = self._document["paths"][operation.path][operation.method].get("x-shape", "")
        return "stream" in shape

    def _takes_long(self, operation: Any) -> bool:
        return "x-shape" in self._document["paths"][operation.path][operation.method]

    def _clear_alarms(self) -> None:
        """Alarms are raised in passing, and would leave little else to be said."""
        url = f"{self._url}/v3/maintenance/alarm"
        raised = self._session.post(url, data=b"{}", timeout=ANSWER_SECONDS).json()
        for alarm in raised.get("alarms", []):
            body = json.dumps({"action": "DEACTIVATE", **alarm})
            self._session.post(url, data=body, timeout=ANSWER_SECONDS)


def _encoded(case: Any) -> bytes:
    try:
        return json.dumps(case.body).encode()
    except TypeError:
        # No body at all is among what may be asked.
        return b""
