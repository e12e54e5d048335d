-- Athena: two tables in the Glue catalog. Days are projected from their paths, so neither a crawler nor MSCK REPAIR is needed.
-- {tables}: output.tables of the pipeline file, with its trailing slash; {database}: your database; {first_day}: the day of
-- the oldest rows.

CREATE EXTERNAL TABLE IF NOT EXISTS {database}.calls (
    call_id string,
    recording_uri string,
    recording_etag string,
    recording_bytes bigint,
    call_started_at timestamp,
    status string,
    failure_class string,
    failure_message string,
    duration_s double,
    language string,
    phase_count int,
    transcript_id string,
    transcript_uri string,
    speech_model string,
    llm_model string,
    llm_input_tokens bigint,
    llm_output_tokens bigint,
    speech_usd double,
    llm_usd double,
    prompt_version string,
    schema_version int,
    run_id string,
    processed_at timestamp,
    turn_count int,
    silence_s double,
    speaker_1 string,
    speaker_1_talk_s double,
    speaker_1_talk_share double,
    speaker_2 string,
    speaker_2_talk_s double,
    speaker_2_talk_share double,
    other_talk_s double,
    interruption_count int,
    words_per_minute double,
    confidence double,
    warnings string
)
PARTITIONED BY (dt date)
STORED AS PARQUET
LOCATION '{tables}calls/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.dt.type' = 'date',
    'projection.dt.format' = 'yyyy-MM-dd',
    'projection.dt.range' = '{first_day},NOW'
);

CREATE EXTERNAL TABLE IF NOT EXISTS {database}.phases (
    call_id string,
    recording_uri string,
    call_started_at timestamp,
    phase_index int,
    phase_name string,
    start_s double,
    end_s double,
    duration_s double,
    share_of_call double,
    start_cue int,
    end_cue int,
    word_count int,
    summary string,
    transcript_id string,
    speech_model string,
    llm_model string,
    prompt_version string,
    schema_version int,
    run_id string,
    processed_at timestamp,
    turn_count int,
    silence_s double,
    speaker_1 string,
    speaker_1_talk_s double,
    speaker_1_talk_share double,
    speaker_2 string,
    speaker_2_talk_s double,
    speaker_2_talk_share double,
    other_talk_s double,
    interruption_count int,
    words_per_minute double,
    confidence double
)
PARTITIONED BY (dt date)
STORED AS PARQUET
LOCATION '{tables}phases/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.dt.type' = 'date',
    'projection.dt.format' = 'yyyy-MM-dd',
    'projection.dt.range' = '{first_day},NOW'
);
