-- How long does nobody talk during the resolution, day by day? (Known since version 2 of the tables.)
WITH days AS (
    SELECT
        dt,
        COUNT(*) AS resolutions,
        SUM(silence_s) AS silent_s,
        SUM(duration_s) AS all_s
    FROM phases
    WHERE phase_name = 'Resolution' AND silence_s IS NOT NULL
    GROUP BY dt
)
SELECT
    dt,
    resolutions,
    silent_s / resolutions AS mean_silence_s,
    silent_s / all_s AS share_of_silence
FROM days
ORDER BY dt
