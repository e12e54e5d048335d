-- How many calls end without a goodbye, day by day?
WITH ends AS (
    SELECT
        dt,
        call_id,
        MAX(CASE WHEN phase_name = 'Goodbye' THEN 1 ELSE 0 END) AS said_goodbye
    FROM phases
    GROUP BY dt, call_id
),
days AS (
    SELECT
        dt,
        COUNT(*) AS calls,
        SUM(1 - said_goodbye) AS abandoned
    FROM ends
    GROUP BY dt
)
SELECT
    dt,
    calls,
    abandoned,
    CAST(abandoned AS DOUBLE) / CAST(calls AS DOUBLE) AS share_abandoned
FROM days
ORDER BY dt
