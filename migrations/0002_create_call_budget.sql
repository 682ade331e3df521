-- The calls to the provider that are left, shared by every process; one row per provider account.
-- Goes before the code.

CREATE TABLE call_budget (
    account            text PRIMARY KEY CHECK (char_length(account) BETWEEN 1 AND 200),
    -- Calls that may be made at once. It fills up with time, counted from refilled_at.
    tokens             double precision NOT NULL CHECK (tokens >= 0),
    refilled_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Nobody calls before this moment: the provider has shut us out.
    blocked_until      timestamptz NOT NULL DEFAULT '-infinity',
    -- What the provider itself said is left, until the moment at which it counts anew.
    provider_left      integer NOT NULL DEFAULT 0 CHECK (provider_left >= 0),
    provider_reset_at  timestamptz NOT NULL DEFAULT '-infinity'
);
