"""How much may watchers hold?"""

import msgspec


class WatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what watching keeps in memory.

    Attributes:
        streams_max: Streams at a time; one more is refused with TOO_MANY_REQUESTS.
        watchers_max: Watchers of all streams; one more is cancelled with a reason.
        watchers_per_stream_max: As above, on one stream; those that a compaction cancelled count
            until their cancel request, since their ids are taken.
        answers_max: Untaken answers to requests of a stream; with one more the stream is refused.
        pending_events_max: Events kept for a watcher; with more it reads on from the log.
        pending_bytes_max: As above, in bytes; one event may exceed it.
        response_bytes_max: A response is cut before it grows beyond this, where it may be: between
            revisions, and within one if the watcher asked for fragments.
        block_records: Records a reading turn of a watcher that lags. It bounds the revisions in one
            response too, and clients of etcd are used to at most 1,000.
        blocks_max: Stretches of the log kept for the watchers that read near each other.
    """

    streams_max: int = 10_000
    watchers_max: int = 1_000_000
    watchers_per_stream_max: int = 100_000
    answers_max: int = 100_000
    pending_events_max: int = 64
    pending_bytes_max: int = 256 * 1024
    response_bytes_max: int = 2 * 1024 * 1024
    block_records: int = 256
    blocks_max: int = 64
