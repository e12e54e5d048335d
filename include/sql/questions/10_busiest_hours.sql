-- At which hours of the day do customers call most, and for how long? (In UTC, if the session is.)
WITH hours AS (
    SELECT
        EXTRACT(HOUR FROM call_started_at) AS hour_of_day,
        COUNT(*) AS calls,
        SUM(duration_s) / 3600 AS audio_hours
    FROM calls
    GROUP BY EXTRACT(HOUR FROM call_started_at)
)
SELECT
    hour_of_day,
    calls,
    audio_hours,
    RANK() OVER (ORDER BY calls DESC) AS busiest
FROM hours
ORDER BY hour_of_day
