-- Clips by age: ids of several forms stand in one list, and only some of them sort by time.
-- Before the code. Neither column ever changes, so updates stay HOT.

CREATE INDEX clips_by_age ON clips (created_at DESC, id DESC);
