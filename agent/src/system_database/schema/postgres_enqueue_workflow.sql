-- Lets plain SQL clients enqueue. "{inline_column}" and "{inline_value}" put the payload into the
-- status row (versions 105..112); "{side_table}" puts it into workflow_input (from 113 on).
CREATE FUNCTION {schema}.enqueue_workflow(
    workflow_name       TEXT,
    queue_name          TEXT,
    positional_args     JSON[]  DEFAULT ARRAY[]::JSON[],
    named_args          JSON    DEFAULT '{}'::JSON,
    class_name          TEXT    DEFAULT NULL,
    config_name         TEXT    DEFAULT NULL,
    workflow_id         TEXT    DEFAULT NULL,
    app_version         TEXT    DEFAULT NULL,
    timeout_ms          BIGINT  DEFAULT NULL,
    deadline_epoch_ms   BIGINT  DEFAULT NULL,
    deduplication_id    TEXT    DEFAULT NULL,
    priority            INTEGER DEFAULT NULL,
    queue_partition_key TEXT    DEFAULT NULL,
    authenticated_user  TEXT    DEFAULT NULL,
    authenticated_roles TEXT    DEFAULT NULL,
    delay_until_epoch_ms BIGINT DEFAULT NULL,
    application_name    TEXT    DEFAULT NULL
) RETURNS TEXT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    v_id       TEXT := COALESCE(workflow_id, gen_random_uuid()::TEXT);
    v_now      BIGINT := (EXTRACT(EPOCH FROM now()) * 1000)::BIGINT;
    v_status   TEXT := CASE WHEN delay_until_epoch_ms IS NULL THEN 'ENQUEUED' ELSE 'DELAYED' END;
    v_envelope TEXT;
BEGIN
    IF workflow_name IS NULL OR workflow_name = '' THEN
        RAISE EXCEPTION 'workflow_name must not be null or empty';
    END IF;
    IF queue_name IS NULL OR queue_name = '' THEN
        RAISE EXCEPTION 'queue_name must not be null or empty';
    END IF;
    IF named_args IS NOT NULL AND json_typeof(named_args) <> 'object' THEN
        RAISE EXCEPTION 'named_args must be a JSON object';
    END IF;
    IF workflow_id = '' THEN
        RAISE EXCEPTION 'workflow_id must not be an empty string';
    END IF;
    IF delay_until_epoch_ms < 0 THEN
        RAISE EXCEPTION 'delay_until_epoch_ms must not be negative';
    END IF;

    v_envelope := json_build_object(
        'positionalArgs', array_to_json(COALESCE(positional_args, ARRAY[]::JSON[])),
        'namedArgs', COALESCE(named_args, '{}'::JSON))::TEXT;

    BEGIN
        INSERT INTO {schema}.workflow_status AS w (
            workflow_uuid, status, {inline_column} name, class_name, config_name, queue_name,
            deduplication_id, priority, queue_partition_key, application_version, application_name,
            authenticated_user, authenticated_roles, workflow_timeout_ms, workflow_deadline_epoch_ms,
            delay_until_epoch_ms, recovery_attempts, serialization, owner_xid, created_at, updated_at
        ) VALUES (
            v_id, v_status, {inline_value}
            enqueue_workflow.workflow_name, enqueue_workflow.class_name, enqueue_workflow.config_name,
            enqueue_workflow.queue_name, enqueue_workflow.deduplication_id,
            COALESCE(enqueue_workflow.priority, 0), enqueue_workflow.queue_partition_key,
            enqueue_workflow.app_version, enqueue_workflow.application_name,
            enqueue_workflow.authenticated_user, enqueue_workflow.authenticated_roles,
            enqueue_workflow.timeout_ms, enqueue_workflow.deadline_epoch_ms,
            enqueue_workflow.delay_until_epoch_ms, 0, 'portable_json', gen_random_uuid()::TEXT, v_now, v_now
        ) ON CONFLICT (workflow_uuid) DO UPDATE SET updated_at = excluded.updated_at;
    EXCEPTION WHEN unique_violation THEN
        RAISE EXCEPTION 'DBOS queue duplicated'
            USING ERRCODE = 'unique_violation',
                  DETAIL = format('Workflow %s with queue %s and deduplication ID %s already exists',
                                  v_id, enqueue_workflow.queue_name, enqueue_workflow.deduplication_id);
    END;
    {side_table}
    RETURN v_id;
END
$body$;
