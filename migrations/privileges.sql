-- Who may do what. Applied after every migration where the roles exist; everything not named here is refused.

REVOKE ALL ON ALL TABLES IN SCHEMA :schema FROM orchestrator_api, orchestrator_monitor;
GRANT USAGE ON SCHEMA :schema TO orchestrator_api, orchestrator_monitor;

-- Asking: new clips, and signals in processing_details. Reading everything but where a clip is fetched from.
GRANT INSERT (id, pipeline, cloudflare_uid, title, processing_details, source_url, upload_expires_at) ON clips TO orchestrator_api;
GRANT UPDATE (processing_details) ON clips TO orchestrator_api;
GRANT SELECT (id, pipeline, cloudflare_uid, title, status, progress, processing_details, attempt, duration, file_size,
              thumbnail_url, hls_url, dash_url, mp4_url, r2_url, error_message, uploaded_at, completed_at, created_at,
              updated_at, upload_expires_at, status_since, look_at, tries, pending, epoch, version) ON clips TO orchestrator_api;
GRANT SELECT ON clip_events, clip_signals, history_pruning, monitor_lease, schema_migrations TO orchestrator_api;

-- Deciding.
GRANT SELECT, INSERT, UPDATE ON clips TO orchestrator_monitor;
GRANT SELECT, INSERT ON clip_events TO orchestrator_monitor;
-- Pruning what is old: a trigger keeps everything else, whoever asks.
GRANT DELETE ON clip_events TO orchestrator_monitor;
GRANT SELECT, UPDATE ON history_pruning TO orchestrator_monitor;
GRANT SELECT, INSERT, DELETE ON clip_signals TO orchestrator_monitor;
GRANT SELECT, UPDATE ON monitor_lease TO orchestrator_monitor;
GRANT SELECT ON schema_migrations TO orchestrator_monitor;
GRANT SELECT, INSERT, UPDATE, DELETE ON transfers, transfer_parts TO orchestrator_monitor;

-- Both call the provider, on one budget.
GRANT SELECT, INSERT, UPDATE ON call_budget TO orchestrator_api, orchestrator_monitor;

-- Idempotency-Key: the API claims keys, keeps answers under them and forgets them after a day.
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO orchestrator_api;

-- Uploads: the API stores them and tells when one is wanted again; the monitor reads them and forgets old ones.
GRANT SELECT, INSERT ON uploads TO orchestrator_api;
GRANT UPDATE (used_at) ON uploads TO orchestrator_api;
GRANT SELECT, DELETE ON uploads TO orchestrator_monitor;
-- What a job has made is noted by the monitor alone.
GRANT SELECT ON artifacts TO orchestrator_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON artifacts TO orchestrator_monitor;

-- What passed between the provider and us: told to people, and forgotten after a while by whoever writes it.
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries, webhook_refusals TO orchestrator_api;
GRANT SELECT, INSERT, DELETE ON provider_calls TO orchestrator_api, orchestrator_monitor;

-- What the provider was asked to make: noted by the monitor alone.
GRANT SELECT, INSERT, DELETE ON provider_asks TO orchestrator_monitor;
-- Heavy steps: the leader queues them and judges what failed; a worker, which acts in the monitor's role, takes them.
GRANT SELECT, INSERT, UPDATE, DELETE ON clip_pgqueuer, workers, worker_progress TO orchestrator_monitor;
GRANT USAGE ON SEQUENCE clip_pgqueuer_id_seq TO orchestrator_monitor;
GRANT SELECT, INSERT, DELETE ON clip_pgqueuer_log, worker_failures TO orchestrator_monitor;
GRANT SELECT ON clip_pgqueuer, workers TO orchestrator_api;
