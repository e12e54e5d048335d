-- How long does a customer wait, from the greeting through the complaint, until the agent starts to act?
WITH steps AS (
    SELECT
        dt,
        call_id,
        phase_name,
        phase_index,
        duration_s,
        MIN(CASE WHEN phase_name = 'Resolution' THEN phase_index END) OVER (PARTITION BY dt, call_id) AS first_move
    FROM phases
),
waits AS (
    SELECT
        dt,
        call_id,
        SUM(
            CASE WHEN phase_index < first_move AND phase_name IN ('Introduction', 'Complaint') THEN duration_s ELSE 0 END
        ) AS wait_s
    FROM steps
    WHERE first_move IS NOT NULL
    GROUP BY dt, call_id
)
SELECT
    dt,
    COUNT(*) AS calls,
    AVG(wait_s) AS mean_wait_s,
    MIN(wait_s) AS shortest_wait_s,
    MAX(wait_s) AS longest_wait_s
FROM waits
GROUP BY dt
ORDER BY dt
