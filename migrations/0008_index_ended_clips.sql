-- For the board: failed clips by age, and complete ones by when they were completed, whatever their number.
-- Before the code. A clip enters the one or the other when it ends, not while it moves. `status` stands in both
-- conditions, so a change of it is never HOT; it was not before either, because each move sets look_at. Requests and
-- progress touch none of the columns and stay HOT.
-- Building them locks clips against writes, for about a second per million rows. To avoid that on a large table, create
-- both beforehand by these names with CREATE INDEX CONCURRENTLY: then there is nothing left to do here.
-- A build that broke off leaves an index that is INVALID, and would be taken for done: drop it by its name and begin again.

CREATE INDEX IF NOT EXISTS clips_failed ON clips (created_at DESC, id DESC) INCLUDE (pipeline) WHERE status = 'error';
CREATE INDEX IF NOT EXISTS clips_completed ON clips (pipeline, completed_at DESC) WHERE status = 'complete';
