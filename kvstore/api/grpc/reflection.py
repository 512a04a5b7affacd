"""gRPC's server reflection: what can be called here, for tools that know nothing of it.

etcd has none; it harms nobody, and shows only what is published anyway.
"""

from typing import Final

from kvstore.api.grpc.calls import Call, Exchange
from kvstore.api.grpc.decode import decode
from kvstore.api.grpc.encode import encode
from kvstore.api.grpc.pb.descriptors import FIELDS, FILES, IMPORTS, SERVICES, SYMBOLS
from kvstore.errors import Code
from kvstore.service.caller import Caller
from kvstore.types import Int64, Record

VERSIONS: Final = ("v1", "v1alpha")
"""Both have the same messages, by the same numbers."""


class ExtensionRequest(Record):
    """Who extends a message? Nobody, in proto3."""

    containing_type: str = ""
    extension_number: Int64 = 0


class ServerReflectionRequest(Record):
    """One question: one of the fields behind the host."""

    host: str = ""
    file_by_filename: str | None = None
    file_containing_symbol: str | None = None
    file_containing_extension: ExtensionRequest | None = None
    all_extension_numbers_of_type: str | None = None
    list_services: str | None = None


class FileDescriptorResponse(Record):
    """A file, and then what it imports."""

    file_descriptor_proto: list[bytes] = []  # noqa: RUF012


class ExtensionNumberResponse(Record):
    """The extensions of a message: none."""

    base_type_name: str = ""


class ServiceResponse(Record):
    """One service."""

    name: str = ""


class ListServiceResponse(Record):
    """All services."""

    service: list[ServiceResponse] = []  # noqa: RUF012


class ErrorResponse(Record):
    """Why there is no answer; ``error_code`` is one of gRPC's."""

    error_code: Int64 = 0
    error_message: str = ""


class ServerReflectionResponse(Record):
    """The answer: one of the fields behind the question."""

    valid_host: str = ""
    original_request: ServerReflectionRequest | None = None
    file_descriptor_response: FileDescriptorResponse | None = None
    all_extension_numbers_response: ExtensionNumberResponse | None = None
    list_services_response: ListServiceResponse | None = None
    error_response: ErrorResponse | None = None


def reflection_calls() -> dict[str, Call]:
    """ServerReflectionInfo, by both of its names."""
    return {
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": converse
        for version in VERSIONS
    }


async def converse(exchange: Exchange, _caller: Caller) -> None:
    """Answer each question in turn, until the client has asked all."""
    while (data := await exchange.receive()) is not None:
        request = decode(ServerReflectionRequest, data)
        await exchange.send([encode(answer(request))])


def answer(request: ServerReflectionRequest) -> ServerReflectionResponse:
    """The answer to one question."""
    response = ServerReflectionResponse(request.host, request)
    if request.list_services is not None:
        services = [ServiceResponse(name) for name in sorted(SERVICES)]
        response.list_services_response = ListServiceResponse(services)
    elif request.file_by_filename is not None:
        _show_file(response, request.file_by_filename, request.file_by_filename)
    elif request.file_containing_symbol is not None:
        symbol = request.file_containing_symbol
        _show_file(response, _file_of(symbol), symbol)
    elif request.all_extension_numbers_of_type in FIELDS:
        name = request.all_extension_numbers_of_type or ""
        response.all_extension_numbers_response = ExtensionNumberResponse(name)
    elif request.file_containing_extension or request.all_extension_numbers_of_type:
        response.error_response = ErrorResponse(Code.NOT_FOUND, "there are no extensions here")
    else:
        words = "ask for a file, a symbol or the list of services"
        response.error_response = ErrorResponse(Code.INVALID_ARGUMENT, words)
    return response


def _file_of(symbol: str) -> str | None:
    """The file in which something is that has a name."""
    message, _, field = symbol.rpartition(".")
    if symbol not in SYMBOLS and field in FIELDS.get(message, ()):
        return SYMBOLS[message]
    return SYMBOLS.get(symbol)


def _show_file(response: ServerReflectionResponse, name: str | None, asked: str) -> None:
    if name not in FILES:
        response.error_response = ErrorResponse(Code.NOT_FOUND, f"{asked} is not known here")
        return
    names = [name]
    for shown in names:
        names += [needed for needed in IMPORTS[shown] if needed not in names]
    response.file_descriptor_response = FileDescriptorResponse([FILES[it] for it in names])
