-- Lets plain SQL clients send a message to a workflow.
CREATE FUNCTION {schema}.send_message(
    destination_id TEXT,
    message        JSON,
    topic          TEXT DEFAULT NULL,
    message_id     TEXT DEFAULT NULL
) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    INSERT INTO {schema}.notifications (destination_uuid, topic, message, message_uuid, serialization)
    VALUES (
        send_message.destination_id,
        COALESCE(send_message.topic, '__null__topic__'),
        send_message.message::TEXT,
        COALESCE(send_message.message_id, gen_random_uuid()::TEXT),
        'portable_json'
    ) ON CONFLICT (message_uuid) DO NOTHING;
EXCEPTION WHEN foreign_key_violation THEN
    RAISE EXCEPTION 'DBOS non-existent workflow'
        USING ERRCODE = 'foreign_key_violation',
              DETAIL = format('Destination workflow %s does not exist', send_message.destination_id);
END
$body$;
