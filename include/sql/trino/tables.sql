-- Trino, Hive connector: two tables. Days are projected from their paths, so no partition sync is needed.
-- {tables}: output.tables of the pipeline file, with its trailing slash; {database}: catalog and schema, such as hive.support;
-- {first_day}: the day of the oldest rows. The catalog needs hive.timestamp-precision=MICROSECONDS.

CREATE TABLE IF NOT EXISTS {database}.calls (
    call_id varchar,
    recording_uri varchar,
    recording_etag varchar,
    recording_bytes bigint,
    call_started_at timestamp(6),
    status varchar,
    failure_class varchar,
    failure_message varchar,
    duration_s double,
    language varchar,
    phase_count integer,
    transcript_id varchar,
    transcript_uri varchar,
    speech_model varchar,
    llm_model varchar,
    llm_input_tokens bigint,
    llm_output_tokens bigint,
    speech_usd double,
    llm_usd double,
    prompt_version varchar,
    schema_version integer,
    run_id varchar,
    processed_at timestamp(6),
    turn_count integer,
    silence_s double,
    speaker_1 varchar,
    speaker_1_talk_s double,
    speaker_1_talk_share double,
    speaker_2 varchar,
    speaker_2_talk_s double,
    speaker_2_talk_share double,
    other_talk_s double,
    interruption_count integer,
    words_per_minute double,
    confidence double,
    warnings varchar,
    dt date WITH (
        partition_projection_type = 'DATE',
        partition_projection_format = 'yyyy-MM-dd',
        partition_projection_range = ARRAY['{first_day}', 'NOW']
    )
)
WITH (
    external_location = '{tables}calls/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt'],
    partition_projection_enabled = true
);

CREATE TABLE IF NOT EXISTS {database}.phases (
    call_id varchar,
    recording_uri varchar,
    call_started_at timestamp(6),
    phase_index integer,
    phase_name varchar,
    start_s double,
    end_s double,
    duration_s double,
    share_of_call double,
    start_cue integer,
    end_cue integer,
    word_count integer,
    summary varchar,
    transcript_id varchar,
    speech_model varchar,
    llm_model varchar,
    prompt_version varchar,
    schema_version integer,
    run_id varchar,
    processed_at timestamp(6),
    turn_count integer,
    silence_s double,
    speaker_1 varchar,
    speaker_1_talk_s double,
    speaker_1_talk_share double,
    speaker_2 varchar,
    speaker_2_talk_s double,
    speaker_2_talk_share double,
    other_talk_s double,
    interruption_count integer,
    words_per_minute double,
    confidence double,
    dt date WITH (
        partition_projection_type = 'DATE',
        partition_projection_format = 'yyyy-MM-dd',
        partition_projection_range = ARRAY['{first_day}', 'NOW']
    )
)
WITH (
    external_location = '{tables}phases/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt'],
    partition_projection_enabled = true
);
