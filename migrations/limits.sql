-- Applied after every migration where this login may alter the roles. They bind whoever logs in as a role's member
-- by its own name; our own sessions bring the same limits with them.

-- A session that hangs may not hold up the others: the figures are far above any statement of ours.
ALTER ROLE orchestrator_api SET lock_timeout = '5s';
ALTER ROLE orchestrator_api SET statement_timeout = '15s';
ALTER ROLE orchestrator_api SET idle_in_transaction_session_timeout = '8s';
ALTER ROLE orchestrator_monitor SET lock_timeout = '5s';
ALTER ROLE orchestrator_monitor SET statement_timeout = '30s';
ALTER ROLE orchestrator_monitor SET idle_in_transaction_session_timeout = '8s';
