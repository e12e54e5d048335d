-- Redshift Spectrum: two external tables. Spectrum does not project days: add each day once (docs/warehouses.md).
-- {tables}: output.tables of the pipeline file, with its trailing slash; {database}: an external schema.
-- A varchar has at most 65,535 bytes: longer texts are truncated without an error.

CREATE EXTERNAL TABLE {database}.calls (
    call_id varchar(2048),
    recording_uri varchar(2048),
    recording_etag varchar(2048),
    recording_bytes bigint,
    call_started_at timestamp,
    status varchar(2048),
    failure_class varchar(2048),
    failure_message varchar(65535),
    duration_s double precision,
    language varchar(2048),
    phase_count integer,
    transcript_id varchar(2048),
    transcript_uri varchar(2048),
    speech_model varchar(2048),
    llm_model varchar(2048),
    llm_input_tokens bigint,
    llm_output_tokens bigint,
    speech_usd double precision,
    llm_usd double precision,
    prompt_version varchar(2048),
    schema_version integer,
    run_id varchar(2048),
    processed_at timestamp,
    turn_count integer,
    silence_s double precision,
    speaker_1 varchar(2048),
    speaker_1_talk_s double precision,
    speaker_1_talk_share double precision,
    speaker_2 varchar(2048),
    speaker_2_talk_s double precision,
    speaker_2_talk_share double precision,
    other_talk_s double precision,
    interruption_count integer,
    words_per_minute double precision,
    confidence double precision,
    warnings varchar(2048)
)
PARTITIONED BY (dt date)
STORED AS PARQUET
LOCATION '{tables}calls/'
TABLE PROPERTIES ('data_cleansing_enabled' = 'true', 'surplus_char_handling' = 'TRUNCATE');

CREATE EXTERNAL TABLE {database}.phases (
    call_id varchar(2048),
    recording_uri varchar(2048),
    call_started_at timestamp,
    phase_index integer,
    phase_name varchar(2048),
    start_s double precision,
    end_s double precision,
    duration_s double precision,
    share_of_call double precision,
    start_cue integer,
    end_cue integer,
    word_count integer,
    summary varchar(65535),
    transcript_id varchar(2048),
    speech_model varchar(2048),
    llm_model varchar(2048),
    prompt_version varchar(2048),
    schema_version integer,
    run_id varchar(2048),
    processed_at timestamp,
    turn_count integer,
    silence_s double precision,
    speaker_1 varchar(2048),
    speaker_1_talk_s double precision,
    speaker_1_talk_share double precision,
    speaker_2 varchar(2048),
    speaker_2_talk_s double precision,
    speaker_2_talk_share double precision,
    other_talk_s double precision,
    interruption_count integer,
    words_per_minute double precision,
    confidence double precision
)
PARTITIONED BY (dt date)
STORED AS PARQUET
LOCATION '{tables}phases/'
TABLE PROPERTIES ('data_cleansing_enabled' = 'true', 'surplus_char_handling' = 'TRUNCATE');
