"""The status tables as SQL functions, generated from the law so that it is written once."""

from __future__ import annotations

from statusutils import ERROR, TABLES, StatusTable, is_valid_status_transition, span


def render_law_functions() -> str:
    """The SQL that creates ``status_rows``, ``status_order``, ``status_may_move`` and ``status_holds``.

    The same tables give the same text.
    """
    rows = ",\n        ".join(_rows(table) for table in TABLES.values())
    orders = "\n        ".join(
        f"WHEN '{table.pipeline}/{status.name}' THEN {status.order}"
        for table in TABLES.values()
        for status in table.statuses
    )
    moves = ",\n        ".join(
        f"'{table.pipeline}/{old.name}>{new.name}'"
        for table in TABLES.values()
        for old in table.statuses
        for new in table.statuses
        if is_valid_status_transition(old.name, new.name, table)
    )
    spans = "\n        ".join(
        f"WHEN '{table.pipeline}/{status.name}' THEN progress BETWEEN {low} AND {high}"
        for table in TABLES.values()
        for status in table.statuses
        if status.name != ERROR
        for low, high in (span(status.name, table),)
    )
    errors = ", ".join(f"'{pipeline}/{ERROR}'" for pipeline in TABLES)
    return f"""\
CREATE OR REPLACE FUNCTION status_rows()
RETURNS TABLE (pipeline text, status text, ord integer, floor numeric, ceiling numeric)
LANGUAGE sql IMMUTABLE AS $$
    VALUES {rows}
$$;
CREATE OR REPLACE FUNCTION status_order(pipeline text, status text) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE pipeline || '/' || status
        {orders}
    END
$$;
CREATE OR REPLACE FUNCTION status_may_move(pipeline text, old text, new text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT pipeline || '/' || old || '>' || new IN (
        {moves})
$$;
CREATE OR REPLACE FUNCTION status_holds(pipeline text, status text, progress numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE pipeline || '/' || status
        {spans}
        ELSE pipeline || '/' || status IN ({errors})
    END
$$;
"""


def _rows(table: StatusTable) -> str:
    return ",\n        ".join(
        f"('{table.pipeline}', '{status.name}', {status.order},"
        f" {status.min_progress}::numeric, {span(status.name, table)[1]}::numeric)"
        for status in table.statuses
    )
