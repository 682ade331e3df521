"""Every benchmark: its module, what it measures, and when it counts as hung."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One module of this package, whose ``measure(place)`` gives rows.

    *limit_minutes* and *full_limit_minutes* end one that hangs; each is at least three times what it takes on two
    cores. *misses* says why where a goal is missed; what was tried stands in the decisions it names.
    """

    name: str
    measures: str
    limit_minutes: float
    full_limit_minutes: float
    misses: str = ""


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "drain",
        "A backlog of signals judged and written, against the same moves over bare tables",
        3,
        10,
        "The floor writes a narrow row and one line of history for each clip. The product's page also reads and "
        "empties the inbox, holds each move against the epoch, against where the clip stood and against the law, "
        "keeps six indexes on rows of 28 columns, and writes history that says why; and Python judges each clip "
        "(decision 0013)",
    ),
    Benchmark(
        "asking",
        "Signals taken from eight clients, against the bare UPDATE of a document",
        3,
        10,
        "A signal is two rows, the document's and the inbox's with its two indexes, filed by the law's trigger; "
        "the floor changes one. No part of it can be left out, and callers with several at a time write them "
        "together for a fraction (decisions 0013 and 0017)",
    ),
    Benchmark(
        "latency",
        "From a signal's commit to its status's, against a bare listener and drain",
        3,
        10,
        "On this machine the disk takes as long: the bare listener and drain, which waits for the same commits, "
        "stands beside it (decision 0013)",
    ),
    Benchmark(
        "machine",
        "Clips taken through all eight statuses, against nothing but the batched writes",
        5,
        20,
        "The floor is eight rounds of batched writes. In the product five of the eight steps are told by effects, "
        "each in a commit of its own: reports that share commits were tried, and one that hung held up the others "
        "(decision 0013)",
    ),
    Benchmark(
        "peers",
        "The same eight steps, against job queues on the same PostgreSQL",
        10,
        45,
        "The goals were set where PgQueuer made 1,042 and the floor 30,000 steps a second; what keeps the product from "
        "its floor is told at `machine`. A peer's step moves a job and calls nobody; the product's looks, plans, acts, "
        "reports, judges by the law and writes history",
    ),
    Benchmark(
        "idle",
        "What a monitor without work costs, and how soon it has its first round",
        3,
        10,
        "Half of the start is importing what it needs; boto3 is left until it is needed",
    ),
    Benchmark(
        "steady",
        "What grows that should not under 500 signals a second",
        10,
        100,
        "The index of history by clip settles at 90 bytes a line, for pages that are filled all over end half full: "
        "here each clip has nine hundred lines, in life it has ten or twenty (docs/growth.md)",
    ),
    Benchmark("growth", "What ten million ended clips cost a round, a page and a plan", 10, 120),
    Benchmark("polling", "Calls to the provider for each clip, and how late it is looked", 6, 180),
    Benchmark(
        "http",
        "Signals, notifications and reads through HTTP against bare handlers; idle web process",
        6,
        15,
        "The bare handler checks nothing. Token or signature, schema, limits, metrics and headers take the rest, "
        "and none of them stands out in a profile; the memory is that of aiohttp, asyncpg, pydantic and structlog "
        "(decision 0017)",
    ),
    Benchmark(
        "transfer",
        "Finished files into a real S3 server against bare pumps and boto3; memory",
        8,
        60,
        "The pumps hash nothing. The MD5 of each part, which the bucket's answer is held against, and the SHA-256 "
        "of the whole take 2.3 ms of a processor for each MiB, and source, pump and bucket share two processors. "
        "boto3 sends ten parts of a file at a time and keeps them in memory; the product sends one, so that a kill "
        "costs one (decision 0005)",
    ),
    Benchmark("streams", "A thousand event streams: how soon each is told, and what it costs", 5, 10),
)
