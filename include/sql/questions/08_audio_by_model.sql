-- How many hours of audio, and how many phases, came from each combination of models and prompt?
SELECT
    dt,
    speech_model,
    llm_model,
    prompt_version,
    COUNT(*) AS calls,
    SUM(duration_s) / 3600 AS audio_hours,
    SUM(phase_count) AS phases
FROM calls
WHERE status = 'completed'
GROUP BY dt, speech_model, llm_model, prompt_version
ORDER BY dt, speech_model, llm_model, prompt_version
