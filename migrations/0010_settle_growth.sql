-- How tables are kept small that are written all day, and the place the pruning of history has come to.
-- Before the code. Every statement takes its lock for an instant and rewrites nothing; rows that are there stay as they
-- are, and what is set here counts from the next vacuum on.
--
-- The server looks every minute (autovacuum_naptime) and vacuums a table with more dead rows than threshold + scale
-- factor x rows. Its own factor, a fifth, lets ten million clips gather two million dead rows, and their indexes with them.

-- Three of a hundred rows may be dead: at ten million one pass over the indexes for every 300,000 dead entries, which
-- is every few minutes under 500 signals a second; at ten thousand every 1,300.
ALTER TABLE clips SET (autovacuum_vacuum_scale_factor = 0.03, autovacuum_vacuum_threshold = 1000,
                       autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 1000,
                       toast.autovacuum_vacuum_scale_factor = 0.03, toast.autovacuum_vacuum_threshold = 1000);

-- A queue: whatever comes is gone within the second. Its size has no part in when to vacuum, and half a minute of the
-- steadiest load is enough to. It may keep the pages it has had: giving them back takes the table from everybody for a
-- moment, and they are needed again at the next rush. Statistics of a queue are of no use; they are taken as rarely as can be.
ALTER TABLE clip_signals SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                              autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
                              vacuum_truncate = false,
                              toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000,
                              toast.vacuum_truncate = false);

-- Only added to, but for the pruning. Half a million new lines (a quarter of an hour of the same load) are frozen while
-- their pages are still in memory, and no index is touched for it; left alone they would all be frozen at once, years
-- later. What was pruned is given back in twentieths, as each such pass goes over both indexes.
ALTER TABLE clip_events SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
                             autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
                             autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 5000);

-- A few rows that are written again and again: they live on a page or two, as long as that page is cleaned. Pages that are
-- filled to a tenth have room for forty versions of a row, so that a new version needs no entry in the index.
ALTER TABLE monitor_lease SET (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100,
                               autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
ALTER TABLE call_budget SET (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100,
                             autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);

-- They turn over within a day, an hour, or the length of a transfer: a twentieth dead is soon a second table.
ALTER TABLE idempotency_keys SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE provider_calls SET (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000);
ALTER TABLE webhook_deliveries SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
ALTER TABLE transfers SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
ALTER TABLE transfer_parts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- How far history has been pruned: of ended clips, everything up to that line and before that moment but how they ended.
-- One row, which those who prune take turns at.
CREATE TABLE history_pruning (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    pruned_through  bigint NOT NULL DEFAULT 0,
    pruned_before   timestamptz NOT NULL DEFAULT '-infinity',
    pruned_lines    bigint NOT NULL DEFAULT 0                -- in all
);
INSERT INTO history_pruning DEFAULT VALUES;
