-- Snowflake: two external tables on a stage. Refresh them after each night (docs/warehouses.md), or by S3 events.
-- {tables}: output.tables of the pipeline file, with its trailing slash; {integration}: a storage integration that
-- can read it.

CREATE STAGE IF NOT EXISTS callphases_tables URL = '{tables}' STORAGE_INTEGRATION = {integration};

CREATE OR REPLACE EXTERNAL TABLE calls (
    call_id VARCHAR AS (VALUE:call_id::VARCHAR),
    recording_uri VARCHAR AS (VALUE:recording_uri::VARCHAR),
    recording_etag VARCHAR AS (VALUE:recording_etag::VARCHAR),
    recording_bytes BIGINT AS (VALUE:recording_bytes::BIGINT),
    call_started_at TIMESTAMP_NTZ AS (VALUE:call_started_at::TIMESTAMP_NTZ),
    status VARCHAR AS (VALUE:status::VARCHAR),
    failure_class VARCHAR AS (VALUE:failure_class::VARCHAR),
    failure_message VARCHAR AS (VALUE:failure_message::VARCHAR),
    duration_s DOUBLE AS (VALUE:duration_s::DOUBLE),
    language VARCHAR AS (VALUE:language::VARCHAR),
    phase_count INTEGER AS (VALUE:phase_count::INTEGER),
    transcript_id VARCHAR AS (VALUE:transcript_id::VARCHAR),
    transcript_uri VARCHAR AS (VALUE:transcript_uri::VARCHAR),
    speech_model VARCHAR AS (VALUE:speech_model::VARCHAR),
    llm_model VARCHAR AS (VALUE:llm_model::VARCHAR),
    llm_input_tokens BIGINT AS (VALUE:llm_input_tokens::BIGINT),
    llm_output_tokens BIGINT AS (VALUE:llm_output_tokens::BIGINT),
    speech_usd DOUBLE AS (VALUE:speech_usd::DOUBLE),
    llm_usd DOUBLE AS (VALUE:llm_usd::DOUBLE),
    prompt_version VARCHAR AS (VALUE:prompt_version::VARCHAR),
    schema_version INTEGER AS (VALUE:schema_version::INTEGER),
    run_id VARCHAR AS (VALUE:run_id::VARCHAR),
    processed_at TIMESTAMP_NTZ AS (VALUE:processed_at::TIMESTAMP_NTZ),
    turn_count INTEGER AS (VALUE:turn_count::INTEGER),
    silence_s DOUBLE AS (VALUE:silence_s::DOUBLE),
    speaker_1 VARCHAR AS (VALUE:speaker_1::VARCHAR),
    speaker_1_talk_s DOUBLE AS (VALUE:speaker_1_talk_s::DOUBLE),
    speaker_1_talk_share DOUBLE AS (VALUE:speaker_1_talk_share::DOUBLE),
    speaker_2 VARCHAR AS (VALUE:speaker_2::VARCHAR),
    speaker_2_talk_s DOUBLE AS (VALUE:speaker_2_talk_s::DOUBLE),
    speaker_2_talk_share DOUBLE AS (VALUE:speaker_2_talk_share::DOUBLE),
    other_talk_s DOUBLE AS (VALUE:other_talk_s::DOUBLE),
    interruption_count INTEGER AS (VALUE:interruption_count::INTEGER),
    words_per_minute DOUBLE AS (VALUE:words_per_minute::DOUBLE),
    confidence DOUBLE AS (VALUE:confidence::DOUBLE),
    warnings VARCHAR AS (VALUE:warnings::VARCHAR),
    dt DATE AS (TO_DATE(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1)))
)
PARTITION BY (dt)
LOCATION = @callphases_tables/calls/
PATTERN = '.*/calls[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE);

CREATE OR REPLACE EXTERNAL TABLE phases (
    call_id VARCHAR AS (VALUE:call_id::VARCHAR),
    recording_uri VARCHAR AS (VALUE:recording_uri::VARCHAR),
    call_started_at TIMESTAMP_NTZ AS (VALUE:call_started_at::TIMESTAMP_NTZ),
    phase_index INTEGER AS (VALUE:phase_index::INTEGER),
    phase_name VARCHAR AS (VALUE:phase_name::VARCHAR),
    start_s DOUBLE AS (VALUE:start_s::DOUBLE),
    end_s DOUBLE AS (VALUE:end_s::DOUBLE),
    duration_s DOUBLE AS (VALUE:duration_s::DOUBLE),
    share_of_call DOUBLE AS (VALUE:share_of_call::DOUBLE),
    start_cue INTEGER AS (VALUE:start_cue::INTEGER),
    end_cue INTEGER AS (VALUE:end_cue::INTEGER),
    word_count INTEGER AS (VALUE:word_count::INTEGER),
    summary VARCHAR AS (VALUE:summary::VARCHAR),
    transcript_id VARCHAR AS (VALUE:transcript_id::VARCHAR),
    speech_model VARCHAR AS (VALUE:speech_model::VARCHAR),
    llm_model VARCHAR AS (VALUE:llm_model::VARCHAR),
    prompt_version VARCHAR AS (VALUE:prompt_version::VARCHAR),
    schema_version INTEGER AS (VALUE:schema_version::INTEGER),
    run_id VARCHAR AS (VALUE:run_id::VARCHAR),
    processed_at TIMESTAMP_NTZ AS (VALUE:processed_at::TIMESTAMP_NTZ),
    turn_count INTEGER AS (VALUE:turn_count::INTEGER),
    silence_s DOUBLE AS (VALUE:silence_s::DOUBLE),
    speaker_1 VARCHAR AS (VALUE:speaker_1::VARCHAR),
    speaker_1_talk_s DOUBLE AS (VALUE:speaker_1_talk_s::DOUBLE),
    speaker_1_talk_share DOUBLE AS (VALUE:speaker_1_talk_share::DOUBLE),
    speaker_2 VARCHAR AS (VALUE:speaker_2::VARCHAR),
    speaker_2_talk_s DOUBLE AS (VALUE:speaker_2_talk_s::DOUBLE),
    speaker_2_talk_share DOUBLE AS (VALUE:speaker_2_talk_share::DOUBLE),
    other_talk_s DOUBLE AS (VALUE:other_talk_s::DOUBLE),
    interruption_count INTEGER AS (VALUE:interruption_count::INTEGER),
    words_per_minute DOUBLE AS (VALUE:words_per_minute::DOUBLE),
    confidence DOUBLE AS (VALUE:confidence::DOUBLE),
    dt DATE AS (TO_DATE(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1)))
)
PARTITION BY (dt)
LOCATION = @callphases_tables/phases/
PATTERN = '.*/phases[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE);
