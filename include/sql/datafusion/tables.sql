-- DataFusion: two external tables. Recreate them to see new days.
-- {tables}: output.tables of the pipeline file, with its trailing slash, or a folder with a copy of the tables.

SET datafusion.execution.time_zone = 'UTC';

CREATE OR REPLACE EXTERNAL TABLE calls (
    call_id VARCHAR,
    recording_uri VARCHAR,
    recording_etag VARCHAR,
    recording_bytes BIGINT,
    call_started_at TIMESTAMP WITH TIME ZONE,
    status VARCHAR,
    failure_class VARCHAR,
    failure_message VARCHAR,
    duration_s DOUBLE,
    language VARCHAR,
    phase_count INT,
    transcript_id VARCHAR,
    transcript_uri VARCHAR,
    speech_model VARCHAR,
    llm_model VARCHAR,
    llm_input_tokens BIGINT,
    llm_output_tokens BIGINT,
    speech_usd DOUBLE,
    llm_usd DOUBLE,
    prompt_version VARCHAR,
    schema_version INT,
    run_id VARCHAR,
    processed_at TIMESTAMP WITH TIME ZONE,
    turn_count INT,
    silence_s DOUBLE,
    speaker_1 VARCHAR,
    speaker_1_talk_s DOUBLE,
    speaker_1_talk_share DOUBLE,
    speaker_2 VARCHAR,
    speaker_2_talk_s DOUBLE,
    speaker_2_talk_share DOUBLE,
    other_talk_s DOUBLE,
    interruption_count INT,
    words_per_minute DOUBLE,
    confidence DOUBLE,
    warnings VARCHAR,
    dt DATE
)
STORED AS PARQUET
PARTITIONED BY (dt)
LOCATION '{tables}calls/';

CREATE OR REPLACE EXTERNAL TABLE phases (
    call_id VARCHAR,
    recording_uri VARCHAR,
    call_started_at TIMESTAMP WITH TIME ZONE,
    phase_index INT,
    phase_name VARCHAR,
    start_s DOUBLE,
    end_s DOUBLE,
    duration_s DOUBLE,
    share_of_call DOUBLE,
    start_cue INT,
    end_cue INT,
    word_count INT,
    summary VARCHAR,
    transcript_id VARCHAR,
    speech_model VARCHAR,
    llm_model VARCHAR,
    prompt_version VARCHAR,
    schema_version INT,
    run_id VARCHAR,
    processed_at TIMESTAMP WITH TIME ZONE,
    turn_count INT,
    silence_s DOUBLE,
    speaker_1 VARCHAR,
    speaker_1_talk_s DOUBLE,
    speaker_1_talk_share DOUBLE,
    speaker_2 VARCHAR,
    speaker_2_talk_s DOUBLE,
    speaker_2_talk_share DOUBLE,
    other_talk_s DOUBLE,
    interruption_count INT,
    words_per_minute DOUBLE,
    confidence DOUBLE,
    dt DATE
)
STORED AS PARQUET
PARTITIONED BY (dt)
LOCATION '{tables}phases/';
