-- Spark: two tables in the session's catalog. MSCK REPAIR TABLE finds new days: run it after each night.
-- {tables}: output.tables of the pipeline file, with its trailing slash (s3a:// if Spark reads S3 through Hadoop).

CREATE TABLE IF NOT EXISTS calls (
    call_id STRING,
    recording_uri STRING,
    recording_etag STRING,
    recording_bytes BIGINT,
    call_started_at TIMESTAMP,
    status STRING,
    failure_class STRING,
    failure_message STRING,
    duration_s DOUBLE,
    language STRING,
    phase_count INT,
    transcript_id STRING,
    transcript_uri STRING,
    speech_model STRING,
    llm_model STRING,
    llm_input_tokens BIGINT,
    llm_output_tokens BIGINT,
    speech_usd DOUBLE,
    llm_usd DOUBLE,
    prompt_version STRING,
    schema_version INT,
    run_id STRING,
    processed_at TIMESTAMP,
    turn_count INT,
    silence_s DOUBLE,
    speaker_1 STRING,
    speaker_1_talk_s DOUBLE,
    speaker_1_talk_share DOUBLE,
    speaker_2 STRING,
    speaker_2_talk_s DOUBLE,
    speaker_2_talk_share DOUBLE,
    other_talk_s DOUBLE,
    interruption_count INT,
    words_per_minute DOUBLE,
    confidence DOUBLE,
    warnings STRING,
    dt DATE
)
USING PARQUET
PARTITIONED BY (dt)
LOCATION '{tables}calls/';

MSCK REPAIR TABLE calls SYNC PARTITIONS;

CREATE TABLE IF NOT EXISTS phases (
    call_id STRING,
    recording_uri STRING,
    call_started_at TIMESTAMP,
    phase_index INT,
    phase_name STRING,
    start_s DOUBLE,
    end_s DOUBLE,
    duration_s DOUBLE,
    share_of_call DOUBLE,
    start_cue INT,
    end_cue INT,
    word_count INT,
    summary STRING,
    transcript_id STRING,
    speech_model STRING,
    llm_model STRING,
    prompt_version STRING,
    schema_version INT,
    run_id STRING,
    processed_at TIMESTAMP,
    turn_count INT,
    silence_s DOUBLE,
    speaker_1 STRING,
    speaker_1_talk_s DOUBLE,
    speaker_1_talk_share DOUBLE,
    speaker_2 STRING,
    speaker_2_talk_s DOUBLE,
    speaker_2_talk_share DOUBLE,
    other_talk_s DOUBLE,
    interruption_count INT,
    words_per_minute DOUBLE,
    confidence DOUBLE,
    dt DATE
)
USING PARQUET
PARTITIONED BY (dt)
LOCATION '{tables}phases/';

MSCK REPAIR TABLE phases SYNC PARTITIONS;
