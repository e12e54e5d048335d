-- Did the night process all recordings, and what happened to the others?
WITH outcomes AS (
    SELECT
        dt,
        status,
        COALESCE(failure_class, '') AS failure,
        COUNT(*) AS recordings
    FROM calls
    GROUP BY dt, status, COALESCE(failure_class, '')
)
SELECT
    dt,
    status,
    failure,
    recordings,
    SUM(recordings) OVER (PARTITION BY dt) AS listed,
    CAST(recordings AS DOUBLE) / CAST(SUM(recordings) OVER (PARTITION BY dt) AS DOUBLE) AS share_of_listed
FROM outcomes
ORDER BY dt, status, failure
