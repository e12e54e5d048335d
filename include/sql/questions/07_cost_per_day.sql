-- What did each day cost, for speech and for the language model, and what did a finished call cost?
WITH days AS (
    SELECT
        dt,
        SUM(CASE WHEN status = 'completed' THEN 1 ELSE 0 END) AS finished,
        SUM(COALESCE(speech_usd, 0)) AS speech,
        SUM(COALESCE(llm_usd, 0)) AS llm
    FROM calls
    GROUP BY dt
)
SELECT
    dt,
    finished,
    speech AS day_speech_usd,
    llm AS day_llm_usd,
    speech + llm AS day_usd,
    CASE WHEN finished > 0 THEN (speech + llm) / CAST(finished AS DOUBLE) END AS usd_per_call
FROM days
ORDER BY dt
