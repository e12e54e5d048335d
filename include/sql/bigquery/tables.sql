-- BigQuery: two external tables, which read S3 through a BigLake connection in the bucket's region (BigQuery Omni).
-- {tables}: output.tables of the pipeline file, with its trailing slash; {database}: a dataset in that region; {connection}:
-- the connection's name, such as aws-us-east-1.callphases. If you copy the tables to Cloud Storage, remove WITH CONNECTION.

CREATE OR REPLACE EXTERNAL TABLE `{database}.calls` (
    call_id STRING,
    recording_uri STRING,
    recording_etag STRING,
    recording_bytes INT64,
    call_started_at TIMESTAMP,
    status STRING,
    failure_class STRING,
    failure_message STRING,
    duration_s FLOAT64,
    language STRING,
    phase_count INT64,
    transcript_id STRING,
    transcript_uri STRING,
    speech_model STRING,
    llm_model STRING,
    llm_input_tokens INT64,
    llm_output_tokens INT64,
    speech_usd FLOAT64,
    llm_usd FLOAT64,
    prompt_version STRING,
    schema_version INT64,
    run_id STRING,
    processed_at TIMESTAMP,
    turn_count INT64,
    silence_s FLOAT64,
    speaker_1 STRING,
    speaker_1_talk_s FLOAT64,
    speaker_1_talk_share FLOAT64,
    speaker_2 STRING,
    speaker_2_talk_s FLOAT64,
    speaker_2_talk_share FLOAT64,
    other_talk_s FLOAT64,
    interruption_count INT64,
    words_per_minute FLOAT64,
    confidence FLOAT64,
    warnings STRING
)
WITH PARTITION COLUMNS (dt DATE)
WITH CONNECTION `{connection}`
OPTIONS (
    format = 'PARQUET',
    uris = ['{tables}calls/*'],
    hive_partition_uri_prefix = '{tables}calls'
);

CREATE OR REPLACE EXTERNAL TABLE `{database}.phases` (
    call_id STRING,
    recording_uri STRING,
    call_started_at TIMESTAMP,
    phase_index INT64,
    phase_name STRING,
    start_s FLOAT64,
    end_s FLOAT64,
    duration_s FLOAT64,
    share_of_call FLOAT64,
    start_cue INT64,
    end_cue INT64,
    word_count INT64,
    summary STRING,
    transcript_id STRING,
    speech_model STRING,
    llm_model STRING,
    prompt_version STRING,
    schema_version INT64,
    run_id STRING,
    processed_at TIMESTAMP,
    turn_count INT64,
    silence_s FLOAT64,
    speaker_1 STRING,
    speaker_1_talk_s FLOAT64,
    speaker_1_talk_share FLOAT64,
    speaker_2 STRING,
    speaker_2_talk_s FLOAT64,
    speaker_2_talk_share FLOAT64,
    other_talk_s FLOAT64,
    interruption_count INT64,
    words_per_minute FLOAT64,
    confidence FLOAT64
)
WITH PARTITION COLUMNS (dt DATE)
WITH CONNECTION `{connection}`
OPTIONS (
    format = 'PARQUET',
    uris = ['{tables}phases/*'],
    hive_partition_uri_prefix = '{tables}phases'
);
